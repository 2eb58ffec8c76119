"""What this process serves, as GET /models/status shows it, and the reports of other processes."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock

from sds_clip.app.errors import without_folder
from sds_clip.app.registry.source import FileReports, ProcessReport
from sds_clip.app.schemas.models import AliasReading, NameStatus, ProcessStatus
from sds_clip.app.serving.aliases import FollowedAlias, Following
from sds_clip.app.serving.loading import VersionLoader
from sds_clip.app.serving.served_models import ModelHandle, ServedModels
from sds_clip.app.threads import in_own_thread

logger = logging.getLogger(__name__)

# Other processes list this one while its report is fresh (`sds_clip.app.registry.source.FORGET_AFTER_S`).
REPORT_EVERY_S = 5.0
# How soon a change is reported. Whoever waits for it looks as often (`sds_clip.app.serving.rollout`).
LOOK_EVERY_S = 0.1
TIMEOUT_S = 5.0


@dataclass(eq=False)
class StatusBoard:
    """Describes what this process serves, and writes reports for other processes if it has a place for them.

    `following` is None in a process that follows no aliases. `hidden` is a folder whose path is
    removed from messages. `folder_trouble` says why the data folder cannot be used.
    """

    _models: ServedModels
    _loader: VersionLoader
    _following: Following | None
    _reports: FileReports | None
    _hidden: Path
    _folder_trouble: Callable[[], str | None]
    _reporting: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self._now = time.time if self._reports is None else self._reports.now
        self._started_at = self._now()
        self._process = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def start(self) -> None:
        if self._reports is not None:
            self._reporting = asyncio.create_task(self._report_for_ever(self._reports), name="reports")

    async def close(self) -> None:
        """Stop reporting. Other processes list this one no longer."""
        if self._reporting is not None:
            self._reporting.cancel()
            await asyncio.gather(self._reporting, return_exceptions=True)

    def own(self) -> ProcessStatus:
        return ProcessStatus(
            process=self._process,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_at=self._started_at,
            at=self._now(),
            aliases=self.aliases,
            models=self._names(),
            data_folder_error=self._folder_trouble(),
        )

    @property
    def aliases(self) -> AliasReading:
        if self._following is None:
            return AliasReading(state="none")
        aliases, state = self._following.aliases, self._following.state
        remembered = state.remembered
        reading = AliasReading(
            state="away" if aliases.away is not None else "none" if aliases.read_at is None else "read",
            read_at=aliases.read_at,
            error=aliases.away,
            state_error=state.error,
        )
        if aliases.read_at is not None:
            reading.source = "registry"
        elif remembered is not None:
            reading.source, reading.read_at = "state", remembered.read_at
        return reading

    async def all(self) -> list[ProcessStatus]:
        """This process first, then the others. If their reports cannot be read, only this process."""
        others: list[ProcessStatus] = []
        with contextlib.suppress(Exception):
            others = await self.others()
        return [self.own(), *others]

    async def others(self) -> list[ProcessStatus]:
        """The other processes. Any error means that their reports cannot be read."""
        if self._reports is None:
            return []
        async with asyncio.timeout(TIMEOUT_S):
            reports = await in_own_thread(self._reports.read, "read reports")
        found = [ProcessStatus.model_validate(report.content) for report in reports]
        return [status for status in found if status.process != self._process]

    def _names(self) -> list[NameStatus]:
        followed = {} if self._following is None else self._following.aliases.by_name
        models = {model.name: model for model in self._models}
        # An alias that was never loaded serves nothing, which is exactly what users look for here.
        names = dict.fromkeys([*models, *followed])
        return [self._name(name, models.get(name), followed.get(name)) for name in names]

    def _name(self, name: str, model: ModelHandle | None, followed: FollowedAlias | None) -> NameStatus:
        status = NameStatus(name=name)
        if model is not None:
            status.version, status.generation = model.clip.version, model.generation
            status.since, status.from_copy = model.since, self._loader.is_copy(model.clip)
            status.alone = model.clip.alone
        if followed is not None:
            status.wanted_version = followed.wanted.version
            status.wanted_generation = followed.wanted.generation
            status.loading = followed.wanted.version in followed.staging
            if (failure := followed.failure) is not None:
                reason = without_folder(failure.reason, self._hidden)
                status.last_failed_load = failure.model_copy(update={"reason": reason})
        return status

    async def _report_for_ever(self, reports: FileReports) -> None:
        """Write a report when something changed, or else every few seconds as a sign of life."""
        alive = await self._enter(reports)
        try:
            last, left_at = None, float("-inf")
            while True:
                news = self._news()
                if news != last or time.monotonic() - left_at > REPORT_EVERY_S:
                    last, left_at = news, time.monotonic()
                    await self._leave(reports, self.own())
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            if alive is not None:
                alive.release()

    def _news(self) -> list[object]:
        """What changes in a report. With hundreds of names, reports take too long to be made and compared."""
        followed = {} if self._following is None else self._following.aliases.by_name
        states = (
            (each.wanted, each.wanted.version in each.staging, each.failure) for each in followed.values()
        )
        return [*self._models, *states, self._folder_trouble()]

    async def _enter(self, reports: FileReports) -> BaseFileLock | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await in_own_thread(lambda: reports.enter(self._process), "enter")
        except Exception as error:  # the file system has no locks; others judge by the age of the reports
            logger.debug("This process cannot lock its report: %s", error)
            return None

    async def _leave(self, reports: FileReports, status: ProcessStatus) -> None:
        report = ProcessReport(status.process, status.at, status.model_dump(mode="json"))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await in_own_thread(lambda: reports.write(report), "write report")
        except Exception as error:
            logger.debug("The report of this process could not be written: %s", error)
