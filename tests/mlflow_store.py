"""MLflow with a store of its own, in a test's folder."""

from pathlib import Path
from typing import Any

import pytest


def local_mlflow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of it. The test is skipped where MLflow is not installed."""
    mlflow = pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    return mlflow.MlflowClient()
