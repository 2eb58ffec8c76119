"""`sds-clip track` with TensorBoard and MLflow for real."""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sds_clip.models.training.trackers import make_tracker, run_id
from sds_clip.models.training.tracking import Outcome
from sds_clip.models.training.watcher import Record
from tests.mlflow_store import local_mlflow
from tests.sds_clip.command_line import exit_code
from tests.sds_clip.transcript import test_transcript  # noqa: F401
from tests.training import save_coco

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

RECORDS: list[Record] = [{"step": step, "steps": 4, "loss": 1 / step, "lr": 0.1} for step in range(1, 5)]
LAST: Record = {"step": 4, "validation_clip": 0.5}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a finished run of four steps leaves."""
    folder = tmp_path / "sds"
    (folder / "delta").mkdir(parents=True)
    (folder / "config.yaml").write_text("objective: clip\nlr: 0.1\n")
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in [*RECORDS, LAST]))
    return folder


@pytest.fixture
def tensorboard() -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")


@pytest.fixture
def mlflow_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is told to use a folder of files."""
    pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path}/mlruns")


def sent(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> int:
    """The figures that the command says it has sent."""
    assert exit_code(["track", *arguments]) == 0
    *_, last = capsys.readouterr().err.splitlines()
    assert ("It had the other " in last) == (" 9 figures" not in last)  # of the nine that the run has
    return int(last.partition(" figures")[0].split()[-1])


def test_mlflow_gets_what_it_lacks_of_a_run_and_nothing_twice(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = local_mlflow(tmp_path, monkeypatch)
    before = make_tracker(
        "mlflow", name="sds", key=run_id(run), folder=run
    )  # of the run itself: it lost most
    before.begin({"objective": "clip"})
    before.log(RECORDS[2])

    assert sent([str(run), "--log-to", "mlflow"], capsys) == 7
    assert sent([str(run / "log.jsonl"), "--log-to", "mlflow"], capsys) == 0

    (experiment,) = (each for each in client.search_experiments() if each.name == "sds-clip")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("sds", "FINISHED")
    for name, values in (("loss", {1: 1.0, 2: 1 / 2, 3: 1 / 3, 4: 1 / 4}), ("validation_clip", {4: 0.5})):
        points = client.get_metric_history(found.info.run_id, name)
        assert sorted((point.step, point.value) for point in points) == sorted(values.items())


def test_a_run_that_mlflow_has_never_seen_is_there_with_its_options(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = local_mlflow(tmp_path, monkeypatch)
    (run / "delta").rmdir()
    assert sent([str(run), "--log-to", "mlflow"], capsys) == 9
    assert sent([str(run), "--log-to", "mlflow"], capsys) == 0
    (experiment,) = (each for each in client.search_experiments() if each.name == "sds-clip")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.status, found.data.params) == ("KILLED", {"objective": "clip", "lr": "0.1"})


def test_tensorboard_gets_what_it_lacks_of_a_run_and_nothing_twice(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    before = make_tracker("tensorboard", name="sds", key="", folder=run / "tensorboard")
    before.begin({"objective": "clip"})
    before.log(RECORDS[0])
    before.end(Outcome.KILLED)

    assert sent([str(run), "--log-to", "tensorboard"], capsys) == 7
    files = sorted((run / "tensorboard").iterdir())
    assert sent([str(run), "--log-to", "tensorboard"], capsys) == 0
    assert sorted((run / "tensorboard").iterdir()) == files

    found = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [point.step for point in found.Scalars("loss")] == [1, 2, 3, 4]
    assert [point.step for point in found.Scalars("validation_clip")] == [4]


@pytest.mark.usefixtures("tensorboard")
def test_run_that_another_process_trains_is_not_sent(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "log.jsonl").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert exit_code(["track", str(run), "--log-to", "tensorboard"]) == 2
    assert "Another process trains" in capsys.readouterr().err


SLOW_MLFLOW = """
import sys, time
from sds_clip.models.training import mlflow_runs
from sds_clip.cli import main
client = mlflow_runs.mlflow_client
def slow():
    time.sleep(12)  # longer than the end of a run waits for what is sent
    return client()
mlflow_runs.mlflow_client = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_a_run_of_four_steps_loses_nothing_to_an_mlflow_that_starts_slowly(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = local_mlflow(tmp_path, monkeypatch)
    arguments = [
        *("finetune", "--base", f"local-dir:{tiny_folder}", "--data", str(save_coco(tmp_path / "coco"))),
        *[
            "--objective",
            "clip",
            "--steps",
            "4",
            "--batch-size",
            "8",
            "--warmup-steps",
            "1",
            "--log-every",
            "1",
        ],
        *("--device", "cpu", "--log-to", "mlflow", "--out", str(tmp_path / "run")),
    ]
    ran = subprocess.run(
        [sys.executable, "-c", SLOW_MLFLOW, *arguments], capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    (experiment,) = (each for each in client.search_experiments() if each.name == "sds-clip")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(found.info.run_id, "clip")] == [1, 2, 3, 4]
