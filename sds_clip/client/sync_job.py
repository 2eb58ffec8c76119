"""A job, for the client that blocks."""

import json
from collections.abc import Iterator
from typing import Any

from sds_clip.client import calls
from sds_clip.client.events import Follower
from sds_clip.client.progress import ProgressBar
from sds_clip.client.record import JobRecord
from sds_clip.client.sync_http import Http


class Job(JobRecord):
    """A job, and what can be asked of it."""

    def __init__(self, http: Http, info: dict[str, Any]) -> None:
        super().__init__(info)
        self._http = http

    def refresh(self) -> "Job":
        """Ask the service how it is now."""
        self.info = self._http.json(calls.get("jobs", self.id))
        return self

    def wait(self, *, progress: bool = False) -> "Job":
        """Wait until it has ended, with a bar where `progress`. A paused one is waited for too.

        Raises: JobFailed where it has failed or was cancelled; ConnectionFailed where the service stays away.
        """
        with ProgressBar(self.id, shown=progress) as bar:
            for frame in self._http.follow(Follower(self.id)):
                bar.show(frame)
        self.refresh().raise_for_failure()
        return self

    def events(self, *, after: int = 0) -> Iterator[dict[str, Any]]:
        """What happened to it since an event's number, then what happens, until it ends."""
        for frame in self._http.follow(Follower(self.id, after)):
            if frame.id is not None:
                yield frame.data

    def metrics(self) -> list[dict[str, Any]]:
        """Its curves: all metrics of a step together."""
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["step"] if found else None
            page = self._http.json(calls.get("jobs", self.id, "metrics", after=after))
            found += page["data"]
            if not page["has_more"]:
                return found

    def log(self) -> Iterator[dict[str, Any]]:
        """The log of a fine-tuning run, record by record, as far as it is written."""
        for line in self._http.lines(calls.get("jobs", self.id, "log")):
            yield json.loads(line)

    def report(self) -> str:
        """An evaluation's page, as HTML."""
        return self._http.send(calls.get("jobs", self.id, "report")).text

    def cancel(self) -> "Job":
        """Cancel it; one that runs is `cancelling` until its worker has stopped."""
        return self._act("cancel")

    def pause(self) -> "Job":
        """Pause it; one that runs is `pausing` until its worker has written a checkpoint."""
        return self._act("pause")

    def resume(self) -> "Job":
        """Queue it again; it goes on from its checkpoint."""
        return self._act("resume")

    def retry(self) -> "Job":
        """Take it up again after it failed or was cancelled; it goes on from its newest checkpoint."""
        return self._act("retry")

    def delete(self) -> "Job":
        """Remove its files once it has ended; its record and its version stay."""
        self.info = self._http.json(calls.delete("jobs", self.id))
        return self

    def _act(self, action: calls.Action) -> "Job":
        self.info = self._http.json(calls.act(self.id, action))
        return self
