"""A job as last described by the service, and its progress as a bar on a terminal."""

from typing import Any

from tqdm import tqdm

from sds_clip.client.errors import JobFailed

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class JobRecord:
    """A job's last known state, without a request; `info` has every field of GET /jobs/{id}."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.kind}, {self.status}>"

    @property
    def id(self) -> str:
        return str(self.info["id"])

    @property
    def kind(self) -> str:
        """`finetune` or `evaluate`."""
        return str(self.info["kind"])

    @property
    def status(self) -> str:
        """validating, queued, running, pausing, paused, cancelling, cancelled, succeeded or failed."""
        return str(self.info["status"])

    @property
    def has_ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def result(self) -> dict[str, Any] | None:
        """Metrics, evaluations, and whether the version was promoted."""
        result: dict[str, Any] | None = self.info["result"]
        return result

    @property
    def version(self) -> str | None:
        version: str | None = self.info["result_version"]
        return version

    @property
    def error(self) -> dict[str, Any] | None:
        """Why the job failed: code, message, param, retryable."""
        error: dict[str, Any] | None = self.info["error"]
        return error

    def raise_for_failure(self) -> None:
        """Raise JobFailed if the job has failed or was cancelled."""
        if self.status in TERMINAL - {"succeeded"}:
            raise JobFailed(self.info)


class ProgressBar:
    """Shows a job's `progress` events; a new stage starts a new count."""

    def __init__(self, job_id: str, *, shown: bool) -> None:
        self._name = job_id
        self._bar: Any = tqdm(disable=not shown, unit="step", desc=job_id, dynamic_ncols=True)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, event: dict[str, Any]) -> None:
        progress = event["progress"]
        stage = event["stage"] or event["status"]
        if event.get("no_worker"):
            stage = f"{event['status']}, and no worker of its queue is alive"
        if (self._bar.n or 0) > progress["step"]:
            self._bar.reset()
        self._bar.total = progress["steps"]
        self._bar.n = progress["step"]
        self._bar.set_description_str(f"{self._name} {stage}")
        self._bar.refresh()
