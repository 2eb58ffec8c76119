"""A run in MLflow. This module imports no torch, so that a supervisor may use it too."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sds_clip.models.errors import ConfigError, first_line
from sds_clip.models.training.tracking import Outcome, Tracker
from sds_clip.models.training.watcher import Record

KEY = "sds_clip.run"
"""The tag of an MLflow run with the id of the job, or of a run without a service."""
_MAX_PARAM_CHARS = 6000
_PARAMS_AT_ONCE = 100


class MLflow(Tracker):
    """A run in MLflow, at MLFLOW_TRACKING_URI in the experiment MLFLOW_EXPERIMENT_NAME, or else `sds-clip`."""

    def __init__(self, name: str, key: str) -> None:
        super().__init__()
        self._name = name
        self._key = key

    def begin(self, config: Mapping[str, Any]) -> None:
        self._client = mlflow_client()
        from mlflow.entities import Param

        experiment = experiment_id()
        found = run_of(self._client, experiment, self._key)
        if found is not None:
            self._run = found.info.run_id
            self._client.update_run(self._run, status="RUNNING")
            self._sent = {name: self._steps(name) for name in found.data.metrics}
            return
        self._run = self._client.create_run(
            experiment, tags={KEY: self._key}, run_name=self._name
        ).info.run_id
        params = [Param(name, str(value)[:_MAX_PARAM_CHARS]) for name, value in config.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._run, params=params[start : start + _PARAMS_AT_ONCE])

    def log(self, record: Record) -> int:
        from mlflow.entities import Metric

        # MLflow keeps every point that it gets, so that a repeated step would be there twice.
        step, now_ms = int(record["step"]), int(time.time() * 1000)
        new = [Metric(name, float(value), now_ms, step) for name, value in self.lacking(record)]
        if new:
            self._client.log_batch(self._run, metrics=new)
        return len(new)

    def end(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._run, outcome)

    def _steps(self, name: str) -> set[int]:
        return {int(point.step) for point in self._client.get_metric_history(self._run, name)}


def check_store() -> None:
    """Raise ConfigError if MLflow would refuse the store at MLFLOW_TRACKING_URI because it is a folder of files.

    MLflow itself is asked, and only then, since its import takes seconds.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    is_folder = Path("mlruns").is_dir() if uri is None else urlsplit(uri).scheme in ("", "file")
    if not is_folder:
        return
    try:
        mlflow_client()
    except Exception as error:
        raise ConfigError(
            f"MLflow cannot use {uri or 'the folder mlruns'} as its store. Set MLFLOW_TRACKING_URI to "
            "sqlite:///mlflow.db or to the address of a server. To use the folder, set MLFLOW_ALLOW_FILE_STORE=true. "
            f"({first_line(error).partition('. ')[0]})"
        ) from error


def mlflow_client() -> Any:
    # Otherwise MLflow sends data on its use to its makers, and prints addresses among a command's results.
    for variable in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        os.environ.setdefault(variable, "true")
    from mlflow import MlflowClient

    return MlflowClient()


def experiment_id() -> str:
    """Return the id of the experiment of all runs, which is created if needed."""
    import mlflow

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "sds-clip"
    return str(mlflow.set_experiment(name).experiment_id)


def run_of(client: Any, experiment: str, key: str) -> Any:
    """Return the MLflow run with a key, or None."""
    return next(iter(client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)), None)
