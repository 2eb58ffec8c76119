"""The trackers of a run: TensorBoard, by event files, and MLflow."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.run_files import CHECKPOINTS, RUN_ID_FILE, checkpoints_in
from models.training.mlflow_runs import MLflow
from models.training.tracking import Outcome, Tracker, figures
from models.training.watcher import Record


def make_tracker(kind: str, *, name: str, key: str, folder: Path) -> Tracker:
    """Return the tracker of a kind. MLflow knows the run by its key, TensorBoard by its folder."""
    return TensorBoard(folder) if kind == "tensorboard" else MLflow(name, key)


def run_id(out: Path) -> str:
    """Return the id of a run in a folder: a new one if it starts from step 0, the former one if it is resumed.

    Raises OSError.
    """
    file = out / RUN_ID_FILE
    if file.exists() and checkpoints_in(out / CHECKPOINTS):
        return file.read_text(encoding="utf-8").strip()
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{(new := uuid.uuid4().hex)}\n", encoding="utf-8")
    return new


class TensorBoard(Tracker):
    """Event files in a folder, one for each time that the run starts. The newest one replaces what the others say."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # Hides everything since step 0, which is written again: a killed process has lost what it had not flushed.
        self._writer = SummaryWriter(str(self._folder), purge_step=0)
        lines = [f"| {name} | {value} |" for name, value in config.items()]
        self._writer.add_text("configuration", "\n".join(["| Option | Value |", "| --- | --- |", *lines]), 0)

    def log(self, record: Record) -> None:
        for name, value in figures(record):
            self._writer.add_scalar(name, value, int(record["step"]))

    def end(self, outcome: Outcome) -> None:
        self._writer.close()
