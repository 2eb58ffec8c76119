"""`sds-clip prune`, over a system that was last used years ago."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sds_clip.app.store import Store
from sds_clip.cli import main
from sds_clip.database import embedded_database
from tests.app.backup.contents import Made, System
from tests.app.store.conftest import FakeClock
from tests.app.store.test_database import upgrade_to


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """The data folder of `sds-clip up`, with its database."""
    data_dir = tmp_path / "data"
    monkeypatch.setenv("SDS_CLIP_DATA_DIR", str(data_dir))
    system = System(embedded_database(data_dir), data_dir, clock=FakeClock())
    yield system
    system.close()


@pytest.fixture
def made(system: System, monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setenv("SDS_CLIP_KEEP_EVALUATIONS_S", "86400")
    monkeypatch.setenv("SDS_CLIP_KEEP_DATASETS_S", "86400")
    return system.fill()


def test_without_a_setting_everything_is_kept(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    system.fill()
    rows = system.rows()
    assert main(["prune", "--apply"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "everything is kept" in err
    assert system.rows() == rows


def test_by_default_nothing_is_changed_and_a_table_says_what_would_go(
    system: System, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, files = system.rows(), system.files()
    assert main(["prune"]) == 0
    out, err = capsys.readouterr()
    header, *lines = out.splitlines()
    assert header.split() == ["kind", "id", "name", "owner", "days", "bytes", "why"]
    assert len(lines) == 2
    (evaluation,) = (line for line in lines if made.measured in line)
    assert evaluation.startswith("evaluation")
    assert evaluation.endswith("It is older than SDS_CLIP_KEEP_EVALUATIONS_S.")
    assert any(made.shard_set in line for line in lines)
    assert "To be removed: version (0), job (0), evaluation (1), data set (1); " in err
    assert (system.rows(), system.files()) == (rows, files)


def test_what_is_listed_is_what_is_then_removed(
    system: System, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prune", "--json", "--in-use"]) == 0
    dry = json.loads(capsys.readouterr().out)
    assert main(["prune", "--json", "--apply"]) == 0
    applied = json.loads(capsys.readouterr().out)

    assert (dry["applied"], applied["applied"]) == (False, True)
    fields = ("kind", "id", "name", "owner", "bytes", "why")
    assert [[each[name] for name in fields] for each in dry["items"]] == [
        [each[name] for name in fields] for each in applied["items"]
    ]
    assert dry["sums"] == applied["sums"]
    assert dry["sums"]["data set"] == {"count": 1, "bytes": 99 * len("first shard" + "second shard")}
    assert {each["id"] for each in dry["in_use"]} == {made.archive_set}
    assert applied["in_use"] == []
    assert main(["prune", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == []
    assert main(["check"]) == 0


def test_a_sweep_that_is_under_way_is_told(
    system: System, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    now = Store(system.url)
    assert now.retention.claim_sweep("a worker", 60)
    now.close()
    assert main(["prune", "--apply"]) == 2
    assert "Another process is removing things; try again later." in capsys.readouterr().err


def test_tables_of_an_older_release_are_not_touched(
    system: System, capsys: pytest.CaptureFixture[str]
) -> None:
    upgrade_to(system.store, "0007")
    assert main(["prune"]) == 2
    assert "have the revision 0007, but this program needs" in capsys.readouterr().err
