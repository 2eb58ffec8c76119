"""How far a job is, as a bar on a terminal."""

from typing import Any

from tqdm import tqdm

from sds_clip.client.events import Frame


class ProgressBar:
    """Shows `progress` frames; a new stage starts a new count."""

    def __init__(self, job_id: str, *, shown: bool) -> None:
        self._name = job_id
        self._bar: Any = tqdm(disable=not shown, unit="step", desc=job_id, dynamic_ncols=True)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, frame: Frame) -> None:
        """Show what a frame says of progress."""
        if frame.name != "progress":
            return
        progress = frame.data["progress"]
        stage = frame.data["stage"] or frame.data["status"]
        if frame.data.get("no_worker"):
            stage = f"{frame.data['status']}, and no worker of its queue is alive"
        if (self._bar.n or 0) > progress["step"]:
            self._bar.reset()
        self._bar.total = progress["steps"]
        self._bar.n = progress["step"]
        self._bar.set_description_str(f"{self._name} {stage}")
        self._bar.refresh()
