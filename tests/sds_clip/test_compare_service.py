"""`sds-clip compare --url`: the same plan by jobs of a service, killed on the way, gives the same table as here."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sds_clip import Client
from tests.sds_clip.command_line import exit_code, start
from tests.sds_clip.embedded import Running
from tests.training import save_coco
from tests.worker.sets import save_winoground

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]


def save_pairs(folder: Path, count: int = 24, seed: int = 0) -> Path:
    """A folder of pictures with metadata.jsonl, which is read in the same way here and on a service."""
    captions = save_coco(folder, count, seed=seed)
    content = json.loads(captions.read_text())
    names = {image["id"]: image["file_name"] for image in content["images"]}
    lines = [
        json.dumps({"file_name": names[each["image_id"]], "text": each["caption"]})
        for each in content["annotations"]
    ]
    captions.unlink()
    (folder / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("up"))
    yield running
    running.close()


@pytest.fixture
def plan(tmp_path: Path) -> dict[str, Any]:
    return {
        "base": "demo",
        "teacher": "demo",
        "data": str(save_pairs(tmp_path / "pairs")),
        "val": str(save_pairs(tmp_path / "val", 8, seed=1)),
        "options": {"steps": 4, "batch_size": 8, "sds_batch_size": 2, "log_every": 1, "score_draws": 1},
        "recipes": ["clip", "clip-choice", "sds-clip"],
        "control": "clip",
        "seeds": [0, 1],
        "benchmarks": {
            "winoground": str(save_winoground(tmp_path / "winoground", 12)),
            "retrieval": str(save_pairs(tmp_path / "retrieval", 8, seed=2)),
        },
        "primary": "winoground",
        "also": {"again": "demo"},
    }


def tables(out: Path) -> dict[str, str]:
    return {name: (out / name).read_text() for name in ("table.tsv", "differences.tsv")}


def test_a_service_gives_the_same_table_though_the_command_is_killed(
    system: Running, plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "plan.yaml", tmp_path / "service"
    file.write_text(yaml.safe_dump(plan, sort_keys=False))
    arguments = ["compare", str(file), "--out", str(out), "--url", system.url]
    assert exit_code([*arguments, "--dry-run"]) == 0
    assert "clip-choice" in capsys.readouterr().out
    with Client(system.url) as client:
        for said in ("sds-clip: waiting for clip-0", "sds-clip: waiting for sds-clip-0"):
            process = start(*arguments)
            assert process.stderr is not None
            assert any(line.startswith(said) for line in process.stderr)
            process.kill()
            process.communicate()
        assert exit_code(arguments) == 0
        jobs = client.jobs(limit=200)
        assert len([job for job in jobs if job.kind == "finetune"]) == 6  # none was submitted twice
        assert len([job for job in jobs if job.kind == "evaluate"]) == 8 * 2
        assert len(client.datasets(limit=200)) == 4
    assert exit_code(["compare", str(file), "--out", str(tmp_path / "here"), "--device", "cpu"]) == 0
    assert tables(out) == tables(tmp_path / "here")
    before = (out / "report.md").read_bytes()
    assert exit_code(arguments) == 0
    assert (out / "report.md").read_bytes() == before


def test_what_only_this_machine_can_do_is_refused_with_a_service(
    system: Running, plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "plan.yaml"
    for change, told in (
        ({"leave_out_shared": True}, "leave_out_shared"),
        ({"images": str(tmp_path)}, "must be a folder that contains its images"),
        ({"data": "nowhere"}, "nowhere"),
    ):
        file.write_text(yaml.safe_dump(plan | change))
        assert exit_code(["compare", str(file), "--out", str(tmp_path / "out"), "--url", system.url]) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out" / "runs").exists()
