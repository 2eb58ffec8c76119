"""What the service last said about a job, and the job's progress as a bar on a terminal."""

import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from sds_clip.client import schemas
from sds_clip.client.errors import JobFailed
from sds_clip.table import printable

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class JobRecord:
    """A job's last known state, without a request; `info` has every field of GET /jobs/{id}."""

    def __init__(self, info: schemas.JobInfo) -> None:
        self.info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.kind}, {self.status}>"

    @property
    def id(self) -> str:
        return self.info["id"]

    @property
    def kind(self) -> schemas.JobKind:
        return self.info["kind"]

    @property
    def status(self) -> schemas.JobStatus:
        return self.info["status"]

    @property
    def has_ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def result(self) -> dict[str, Any] | None:
        """Metrics, evaluations, and whether the version was promoted."""
        return self.info["result"]

    @property
    def version(self) -> str | None:
        return self.info["result_version"]

    @property
    def error(self) -> schemas.JobErrorInfo | None:
        """Why the job failed."""
        return self.info["error"]

    def raise_for_failure(self) -> None:
        """Raise JobFailed if the job has failed or was cancelled."""
        if self.status in TERMINAL - {"succeeded"}:
            raise JobFailed(self.info)


class Progress(AbstractContextManager["Progress"]):
    """Shows a job's `progress` events. On a terminal and in a notebook each stage gets a bar, elsewhere a line."""

    def __init__(self, record: JobRecord, *, shown: bool) -> None:
        about = record.info.get("suffix") or record.info.get("benchmark")
        self._name = f"{record.kind} {about}" if about else record.kind
        self._shown = shown
        self._has_bar = shown and (sys.stderr.isatty() or "ipykernel" in sys.modules)
        self._stage = ""
        self._bar: Any = None

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, event: Mapping[str, Any]) -> None:
        step, steps = event["progress"]["step"], event["progress"]["steps"]
        stage = event["stage"] or event["status"]
        if event.get("no_worker"):
            stage = f"{event['status']}; no worker for such jobs is alive"
        if self._shown and not self._has_bar and stage != self._stage:
            print(printable(f"{self._name}: {stage}"), file=sys.stderr)
        elif self._has_bar:
            self._draw(stage, step, steps)
        self._stage = stage

    def _draw(self, stage: str, step: int, steps: int | None) -> None:
        if self._bar is None:
            from tqdm.auto import tqdm  # slow to import, and few clients draw a bar

            self._bar = tqdm(unit="step", dynamic_ncols=True, leave=False)
        if stage != self._stage or step < self._bar.n:
            # The rate is that of this stage: neither the time in the queue nor resumed steps count.
            self._bar.reset()
            self._bar.initial = self._bar.n = step
            self._bar.set_description_str(printable(f"{self._name}: {stage}"), refresh=False)
        self._bar.total = steps
        self._bar.update(step - self._bar.n)
        self._bar.refresh()
