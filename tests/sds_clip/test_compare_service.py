"""`sds-clip compare --url`: the same plan by jobs of a service, killed on the way, gives the same table as here."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sds_clip import Client
from sds_clip.demo.folders import write_pairs
from sds_clip.demo.sets import training_pairs
from tests.sds_clip.command_line import exit_code, start
from tests.sds_clip.embedded import Running
from tests.training import save_coco
from tests.worker.sets import save_winoground

ROOT = Path(__file__).parents[2]
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


def killed_at(said: str, arguments: list[str]) -> None:
    """Start the command, and kill it once it has said this."""
    process = start(*arguments)
    assert process.stderr is not None
    assert any(line.startswith(f"sds-clip: {said}") for line in process.stderr)
    process.kill()
    process.communicate()


def test_a_service_gives_the_same_table_though_the_command_is_killed(
    system: Running, plan: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "plan.yaml", tmp_path / "service"
    file.write_text(yaml.safe_dump(plan, sort_keys=False))
    arguments = ["compare", str(file), "--out", str(out), "--url", system.url]
    assert exit_code([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "clip-choice" in shown
    assert "on the 12 items of winoground, 2 seeds find it" in shown
    with Client(system.url) as client:
        for said in ("waiting for clip-0", "waiting for sds-clip-0"):
            killed_at(said, arguments)
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


@pytest.mark.long
def test_eight_recipes_on_the_demo_world_give_the_same_table_here_and_by_two_workers(tmp_path: Path) -> None:
    """Both commands are killed twice. The service has a worker that trains and one that evaluates."""
    write_pairs(tmp_path / "pairs", training_pairs(1, 0, 256))
    write_pairs(tmp_path / "val", training_pairs(2, 0, 32))
    queries = training_pairs(3, 0, 64)
    write_pairs(tmp_path / "retrieval", queries)
    rows = [{"file_name": f"{n:05d}.png", "text": text} for n, text in enumerate(queries.captions)]
    (tmp_path / "retrieval" / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    plan = {
        "base": "demo",
        "teacher": "demo",
        "data": str(tmp_path / "pairs"),
        "val": str(tmp_path / "val"),
        "options": {"steps": 40, "batch_size": 32, "sds_batch_size": 4, "score_draws": 2},
        "recipes": [
            "clip",
            "clip-choice",
            "negclip",
            "fsc-clip",
            "ce-clip",
            "self-distilled",
            "score",
            "sds-clip",
        ],
        "control": "clip",
        "seeds": [0, 1],
        "benchmarks": {
            "winoground": str(ROOT / "demo/data/validation"),
            "retrieval": str(tmp_path / "retrieval"),
        },
        "primary": "winoground",
    }
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(plan, sort_keys=False))
    here = ["compare", str(file), "--out", str(tmp_path / "here"), "--device", "cpu"]
    for said in ("training clip-0", "training fsc-clip-1"):
        killed_at(said, here)
    assert exit_code(here) == 0
    (tmp_path / "up").mkdir()
    running = Running(tmp_path / "up")
    try:
        by_jobs = ["compare", str(file), "--out", str(tmp_path / "service"), "--url", running.url]
        for said in ("waiting for clip-0", "waiting for fsc-clip-1"):
            killed_at(said, by_jobs)
        assert exit_code(by_jobs) == 0
    finally:
        running.close()
    assert tables(tmp_path / "service") == tables(tmp_path / "here")
    print((tmp_path / "here" / "report.md").read_text())  # with -s, the page of the comparison


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
    file.write_text(yaml.safe_dump(plan))
    (tmp_path / "out" / "runs" / "clip-0" / "delta").mkdir(parents=True)
    assert exit_code(["compare", str(file), "--out", str(tmp_path / "out"), "--url", system.url]) == 2
    assert "clip-0 was trained here" in capsys.readouterr().err
