import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.key_uses import FOLDER
from app.keys import read_keys
from sds_clip.cli import main


def test_a_key_is_printed_once_and_kept_as_its_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    assert (
        main(["keys", "create", "phone", "--scope", "infer", "--scope", "train", "--keys-file", str(file)])
        == 0
    )
    captured = capsys.readouterr()
    key = captured.out.strip()
    assert key not in captured.err
    assert f"--keys-file {file}" in captured.err
    assert key not in file.read_text()
    assert json.loads(file.read_text())["keys"] == [
        {"name": "phone", "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": ["infer", "train"]}
    ]


def test_the_scope_is_infer_and_the_file_the_environment_s_unless_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDS_CLIP_KEYS_FILE", str(tmp_path / "mine.json"))
    assert main(["keys", "create", "phone"]) == 0
    assert json.loads((tmp_path / "mine.json").read_text())["keys"][0]["scopes"] == ["infer"]
    assert "--keys-file" not in capsys.readouterr().err
    monkeypatch.delenv("SDS_CLIP_KEYS_FILE")
    monkeypatch.setenv("SDS_CLIP_DATA_DIR", str(tmp_path / "data"))
    assert main(["keys", "create", "phone"]) == 0
    assert (tmp_path / "data/keys.json").is_file()


def test_a_name_in_use_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["keys", "create", "phone", "--keys-file", str(tmp_path / "keys.json")]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_keys_are_listed_and_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ["--keys-file", str(tmp_path / "keys.json")]
    for name in ("phone", "me"):
        assert main(["keys", "create", name, "--scope", "infer", "--scope", "train", *file]) == 0
    capsys.readouterr()
    assert main(["keys", "delete", "phone", *file]) == 0
    assert main(["keys", "list", *file]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["me    infer train  never    never"]
    assert main(["keys", "delete", "phone", *file]) == 2
    assert "has no key named phone" in capsys.readouterr().err


def test_key_with_an_expiry_and_its_last_use_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["--keys-file", str(tmp_path / "keys.json")]
    assert main(["keys", "create", "guest", "--expires", "2999-01-31", *file]) == 0
    assert main(["keys", "create", "phone", "--expires", "90d", *file]) == 0
    guest, phone = read_keys(tmp_path / "keys.json")
    assert guest.expires_at == datetime(2999, 1, 31, tzinfo=UTC)
    assert phone.expires_at is not None
    assert abs(phone.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(hours=1)
    used = tmp_path / "data" / FOLDER / guest.sha256
    used.parent.mkdir(parents=True)
    used.touch()
    os.utime(used, (1_800_000_000, 1_800_000_000))
    capsys.readouterr()

    assert main(["keys", "list", *file, "--data-dir", str(tmp_path / "data")]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.endswith(" last used")
    assert first.split() == ["guest", "infer", "2999-01-31", "00:00", "2027-01-15", "08:00"]
    assert second.split()[-1] == "never"


@pytest.mark.parametrize("when", ["0d", "90", "2020-01-01", "tomorrow", "99999999d", ""])
def test_expiry_that_is_no_moment_to_come_is_refused_and_no_key_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    file = tmp_path / "keys.json"
    assert main(["keys", "create", "guest", "--expires", when, "--keys-file", str(file)]) == 2
    assert "such as 90d" in capsys.readouterr().err
    assert not file.exists()


def test_file_of_keys_that_never_expire_has_nothing_that_an_older_release_refuses(tmp_path: Path) -> None:
    assert main(["keys", "create", "me", "--keys-file", str(tmp_path / "keys.json")]) == 0
    (key,) = json.loads((tmp_path / "keys.json").read_text())["keys"]
    assert set(key) == {"name", "sha256", "scopes"}


def test_keys_that_are_created_at_once_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    script = (
        "import sys, pathlib, app.keys as k; k.create_key(pathlib.Path(sys.argv[1]), sys.argv[2], ['infer'])"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(file), f"key-{n}"]) for n in range(8)]
    assert [process.wait() for process in started] == [0] * 8
    assert {key.name for key in read_keys(file)} == {f"key-{n}" for n in range(8)}


def test_serving_the_network_without_keys_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "0.0.0.0"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("sds-clip: ")
    assert "0.0.0.0" in captured.err
    assert captured.err.count("\n") == 1
