"""The trackers of a run: TensorBoard, by event files, and MLflow."""

import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from sds_clip.models.run_files import CHECKPOINTS, RUN_ID_FILE, checkpoints_in
from sds_clip.models.training.mlflow_runs import MLflow
from sds_clip.models.training.tracking import Outcome, Tracker
from sds_clip.models.training.watcher import Record


def make_tracker(kind: str, *, name: str, key: str, folder: Path, adds: bool = False) -> Tracker:
    """Return the tracker of a kind. MLflow knows the run by its key, TensorBoard by its folder.

    `adds` is of TensorBoard alone.
    """
    return TensorBoard(folder, adds=adds) if kind == "tensorboard" else MLflow(name, key)


def run_id(out: Path, *, resumed: bool = False) -> str:
    """Return the id of a run in a folder: a new one if it starts from step 0, the former one if it is resumed.

    Raises OSError.
    """
    file = out / RUN_ID_FILE
    if file.exists() and (resumed or checkpoints_in(out / CHECKPOINTS)):
        return file.read_text(encoding="utf-8").strip()
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{(new := uuid.uuid4().hex)}\n", encoding="utf-8")
    return new


class TensorBoard(Tracker):
    """Event files in a folder, one for each time that the run starts. The newest one replaces what the others say.

    One that only `adds` leaves them as they are, and writes what they lack.
    """

    def __init__(self, folder: Path, *, adds: bool = False) -> None:
        super().__init__()
        self._folder, self._adds = folder, adds

    @cached_property
    def _writer(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        # Hides everything since step 0, which is written again: a killed process has lost what it had not flushed.
        return SummaryWriter(str(self._folder), purge_step=None if self._sent else 0)

    def begin(self, config: Mapping[str, Any]) -> None:
        if self._adds:
            self._sent = _steps_in(self._folder)
        if self._sent:
            return
        lines = [f"| {name} | {value} |" for name, value in config.items()]
        self._writer.add_text("configuration", "\n".join(["| Option | Value |", "| --- | --- |", *lines]), 0)

    def log(self, record: Record) -> int:
        new = self.lacking(record)
        for name, value in new:
            self._writer.add_scalar(name, value, int(record["step"]))
        return len(new)

    def end(self, outcome: Outcome) -> None:
        if "_writer" in vars(self):
            self._writer.close()


def _steps_in(folder: Path) -> dict[str, set[int]]:
    """Return the steps of each figure in a folder's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        return {}
    found = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {name: {point.step for point in found.Scalars(name)} for name in found.Tags()["scalars"]}
