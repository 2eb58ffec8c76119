"""A job, for the client that is awaited."""

import json
from collections.abc import AsyncIterator
from typing import Any

from sds_clip.client import calls
from sds_clip.client.aio_http import AsyncHttp
from sds_clip.client.events import Follower
from sds_clip.client.progress import ProgressBar
from sds_clip.client.record import JobRecord


class AsyncJob(JobRecord):
    """A job, and what can be asked of it."""

    def __init__(self, http: AsyncHttp, info: dict[str, Any]) -> None:
        super().__init__(info)
        self._http = http

    async def refresh(self) -> "AsyncJob":
        """Ask the service how it is now."""
        self.info = await self._http.json(calls.get("jobs", self.id))
        return self

    async def wait(self, *, progress: bool = False) -> "AsyncJob":
        """Wait until it has ended, with a bar where `progress`. A paused one is waited for too.

        Raises: JobFailed where it has failed or was cancelled; ConnectionFailed where the service stays away.
        """
        with ProgressBar(self.id, shown=progress) as bar:
            async for frame in self._http.follow(Follower(self.id)):
                bar.show(frame)
        (await self.refresh()).raise_for_failure()
        return self

    async def events(self, *, after: int = 0) -> AsyncIterator[dict[str, Any]]:
        """What happened to it since an event's number, then what happens, until it ends."""
        async for frame in self._http.follow(Follower(self.id, after)):
            if frame.id is not None:
                yield frame.data

    async def metrics(self) -> list[dict[str, Any]]:
        """Its curves: all metrics of a step together."""
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["step"] if found else None
            page = await self._http.json(calls.get("jobs", self.id, "metrics", after=after))
            found += page["data"]
            if not page["has_more"]:
                return found

    async def log(self) -> AsyncIterator[dict[str, Any]]:
        """The log of a fine-tuning run, record by record, as far as it is written."""
        async for line in self._http.lines(calls.get("jobs", self.id, "log")):
            yield json.loads(line)

    async def report(self) -> str:
        """An evaluation's page, as HTML."""
        return (await self._http.send(calls.get("jobs", self.id, "report"))).text

    async def cancel(self) -> "AsyncJob":
        """Cancel it; one that runs is `cancelling` until its worker has stopped."""
        return await self._act("cancel")

    async def pause(self) -> "AsyncJob":
        """Pause it; one that runs is `pausing` until its worker has written a checkpoint."""
        return await self._act("pause")

    async def resume(self) -> "AsyncJob":
        """Queue it again; it goes on from its checkpoint."""
        return await self._act("resume")

    async def retry(self) -> "AsyncJob":
        """Take it up again after it failed or was cancelled; it goes on from its newest checkpoint."""
        return await self._act("retry")

    async def delete(self) -> "AsyncJob":
        """Remove its files once it has ended; its record and its version stay."""
        self.info = await self._http.json(calls.delete("jobs", self.id))
        return self

    async def _act(self, action: calls.Action) -> "AsyncJob":
        self.info = await self._http.json(calls.act(self.id, action))
        return self
