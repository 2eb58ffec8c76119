"""What this process serves, as GET /models/status shows it, and what the others left of theirs."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from app.errors import without_folder
from app.registry.ports import ProcessReport, ReportSink
from app.schemas.models import AliasReading, FailedLoad, NameStatus, ProcessStatus
from app.serving.served import Served, ServedModels
from app.serving.swap import Failure, Followed, Swapper
from app.threads import in_own_thread

logger = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0
LOOK_EVERY_S = 0.5
TIMEOUT_S = 5.0


class StatusBoard:
    """Says what this process serves, and leaves it for the others where there is a place for that.

    `hidden` is a folder whose path stays out of it.
    """

    def __init__(
        self, models: ServedModels, swapper: Swapper, reports: ReportSink | None, hidden: Path
    ) -> None:
        self._models = models
        self._swapper = swapper
        self._reports = reports
        self._hidden = hidden
        self._started_at = time.time()
        self._process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._reporting: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to leave reports."""
        if self._reports is not None:
            self._reporting = asyncio.create_task(self._report_for_ever(self._reports), name="reports")

    async def close(self) -> None:
        """Leave no more."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)

    def own(self) -> ProcessStatus:
        """This process, now."""
        return ProcessStatus(
            process=self._process,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            at=time.time(),
            aliases=self.aliases,
            models=self._names(),
        )

    @property
    def aliases(self) -> AliasReading:
        """Whether the aliases can be read, and where those that are followed were read."""
        return _reading(self._swapper)

    async def all(self) -> list[ProcessStatus]:
        """This process first, then the others; it alone where the others' reports cannot be read."""
        others: Sequence[ProcessReport] = []
        if self._reports is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(TIMEOUT_S):
                    others = await in_own_thread(self._reports.read, "read reports")
        found = [ProcessStatus.model_validate(report.content) for report in others]
        return [self.own(), *(status for status in found if status.process != self._process)]

    def _names(self) -> list[NameStatus]:
        names = [_serving(served, self._swapper) for served in self._models]
        # An alias that was never loaded serves nothing, and that is what people look here for.
        served = {name.name for name in names}
        names += [NameStatus(name=name) for name in self._swapper.followed if name not in served]
        return [_following(name, self._swapper.followed.get(name.name), self._hidden) for name in names]

    async def _report_for_ever(self, reports: ReportSink) -> None:
        """Leave a report when something changed, else every few seconds, which says that the process lives."""
        last, left_at = None, float("-inf")
        while True:
            status = self.own()
            news = [name.model_dump() for name in status.models]
            if news != last or time.monotonic() - left_at > REPORT_EVERY_S:
                last, left_at = news, time.monotonic()
                await self._leave(reports, status)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _leave(self, reports: ReportSink, status: ProcessStatus) -> None:
        report = ProcessReport(status.process, status.at, status.model_dump(mode="json"))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await in_own_thread(lambda: reports.write(report), "write report")
        except Exception as error:
            logger.debug("this process's report was not left: %s", error)


def _reading(swapper: Swapper) -> AliasReading:
    state: Literal["read", "away", "none"] = "none" if swapper.read_at is None else "read"
    return AliasReading(
        state=state if swapper.away is None else "away",
        source=swapper.source,
        read_at=swapper.last_read_at,
        error=swapper.away,
        state_error=swapper.state_error,
    )


def _serving(served: Served, swapper: Swapper) -> NameStatus:
    return NameStatus(
        name=served.name,
        version=served.clip.version,
        generation=served.generation,
        since=served.since,
        from_copy=swapper.is_copy(served),
    )


def _following(name: NameStatus, followed: Followed | None, hidden: Path) -> NameStatus:
    """The name's status with where its alias points and what came of that."""
    if followed is None:
        return name
    return name.model_copy(
        update={
            "wanted_version": followed.wanted.version,
            "wanted_generation": followed.wanted.generation,
            "loading": followed.wanted.version in followed.staging,
            "last_failed_load": _failed_load(followed.failure, hidden),
        }
    )


def _failed_load(failure: Failure | None, hidden: Path) -> FailedLoad | None:
    if failure is None:
        return None
    return FailedLoad(
        version=failure.version,
        generation=failure.generation,
        at=failure.at,
        code=failure.code,
        reason=without_folder(failure.reason, hidden),
        attempts=failure.attempts,
    )
