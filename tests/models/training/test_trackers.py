"""TensorBoard and MLflow for real: runs that are resumed or killed have every step once."""

from pathlib import Path
from typing import Any

import pytest

from sds_clip.models.training.parts import Parts
from sds_clip.models.training.run import train
from sds_clip.models.training.trackers import make_tracker
from sds_clip.models.training.tracking import Outcome, Tracking
from sds_clip.models.training.watcher import Record
from tests.mlflow_store import local_mlflow
from tests.training import PLACE, configure

# Both packages, and MLflow's store of tests alone, use what newer versions of other packages deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

RECORDS: list[Record] = [{"step": step, "steps": 6, "loss": 1 / step} for step in range(1, 7)]
LAST: Record = {"step": 6, "validation_clip": 0.5}


@pytest.fixture
def mlflow_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return local_mlflow(tmp_path, monkeypatch)


def track(kind: str, folder: Path, records: list[Record], *, before: int, killed: bool = False) -> None:
    """A run, or its continuation after the first `before` records, which its log has."""
    tracking = Tracking(make_tracker(kind, name="run", key="job-1", folder=folder))
    with tracking:
        tracking.begin({"lr": 0.1, "objective": "clip"}, records[:before])
        for record in records[before:]:
            tracking.log(record)
        tracking.outcome = Outcome.KILLED if killed else Outcome.FINISHED


def test_tensorboard_has_every_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    track("tensorboard", tmp_path, RECORDS[:4], before=0, killed=True)
    track("tensorboard", tmp_path, [*RECORDS, LAST], before=2)  # resumed from a checkpoint at step 2

    found = EventAccumulator(str(tmp_path))
    found.Reload()
    points = [(point.step, point.value) for point in found.Scalars("loss")]
    assert points == [(step, pytest.approx(1 / step)) for step in range(1, 7)]
    assert [point.step for point in found.Scalars("validation_clip")] == [6]
    assert "configuration/text_summary" in found.Tags()["tensors"]


def test_mlflow_goes_on_in_the_same_run_and_has_every_step_once(mlflow_client: Any, tmp_path: Path) -> None:
    track("mlflow", tmp_path, RECORDS[:4], before=0, killed=True)
    (experiment,) = (each for each in mlflow_client.search_experiments() if each.name == "sds-clip")
    (killed,) = mlflow_client.search_runs([experiment.experiment_id])
    assert killed.info.status == "KILLED"
    track("mlflow", tmp_path, [*RECORDS, LAST], before=2)

    (run,) = mlflow_client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params == {"lr": "0.1", "objective": "clip"}
    points = mlflow_client.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in points] == [(step, 1 / step) for step in range(1, 7)]
    assert run.data.metrics["validation_clip"] == 0.5
    assert "steps" not in run.data.metrics


def test_a_whole_run_is_tracked(mlflow_client: Any, parts: Parts, tmp_path: Path) -> None:
    tracker = make_tracker("mlflow", name="run", key="job-2", folder=tmp_path)
    train(configure(objective="clip", log_every=1), parts, tmp_path / "run", PLACE, tracker=tracker)
    (experiment,) = (each for each in mlflow_client.search_experiments() if each.name == "sds-clip")
    (run,) = mlflow_client.search_runs([experiment.experiment_id])
    assert run.data.params["objective"] == "clip"
    assert [point.step for point in mlflow_client.get_metric_history(run.info.run_id, "clip")] == [1, 2, 3, 4]
