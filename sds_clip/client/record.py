"""What both kinds of job object know of a job without asking the service again."""

from typing import Any

from sds_clip.client.errors import JobFailed

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})


class JobRecord:
    """A job as the service described it last; `info` has all of GET /jobs/{id}."""

    def __init__(self, info: dict[str, Any]) -> None:
        self.info = info

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.kind}, {self.status}>"

    @property
    def id(self) -> str:
        """Its id."""
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
        """Whether nothing befalls it any more."""
        return self.status in TERMINAL

    @property
    def result(self) -> dict[str, Any] | None:
        """Metrics, evaluations, and what came of promoting."""
        result: dict[str, Any] | None = self.info["result"]
        return result

    @property
    def version(self) -> str | None:
        """The version that it made."""
        version: str | None = self.info["result_version"]
        return version

    @property
    def error(self) -> dict[str, Any] | None:
        """Why it failed: code, message, param, retryable."""
        error: dict[str, Any] | None = self.info["error"]
        return error

    def raise_for_failure(self) -> None:
        """Raise JobFailed where it has failed or was cancelled."""
        if self.status in TERMINAL - {"succeeded"}:
            raise JobFailed(self.info)
