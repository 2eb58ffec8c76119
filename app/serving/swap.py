"""Hot swap: follows the aliases, prepares new weights aside, then installs them with one assignment.

    read the aliases (four times a second) -> load, verify, apply to the base (a thread of its own)
      -> golden inputs and warm-up (forward thread) -> encode the label sets in use (requests go first)
      -> one assignment

A version that cannot be loaded changes nothing. The alias continues to serve what it serves, and reports the
reason (GET /models/status, metrics, log). Loading is retried with increasing pauses, unless the alias is
moved to another version first.

A process that starts while the aliases cannot be read follows those that it read last
(`sds_clip.app.registry.local_state`). If it knows none, or has not loaded the version that an alias points to, requests
for that name fail. They are never answered with other weights. Once an alias is removed, its name is unknown.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence
from dataclasses import InitVar, dataclass

from prometheus_client import Counter, Gauge, Histogram

from sds_clip.app.errors import ServiceError
from sds_clip.app.metrics import SECONDS, Metrics
from sds_clip.app.schemas.models import FailedLoad
from sds_clip.app.serving.aliases import FollowedAlias, Following
from sds_clip.app.serving.classes import ClassWeights
from sds_clip.app.serving.loading import VersionLoader
from sds_clip.app.serving.served_models import ModelHandle, ServedModels
from sds_clip.app.store.alias_names import DEFAULT
from sds_clip.app.store.records import Alias
from sds_clip.app.threads import in_own_thread
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import ModelError, first_line

logger = logging.getLogger(__name__)

POLL_S = 0.25
READ_TIMEOUT_S = 10.0
# A start waits this long for the aliases' versions. Then the process answers, but is not ready until they are
# loaded.
START_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 2.0
# Label sets delay a swap no longer than this. The rest are encoded when a request needs them.
PREPARE_TIMEOUT_S = 0.5
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
MAX_STAGING = 4  # models that are loaded at once; the other aliases wait for a later round
STUCK_AFTER_S = 60.0  # a load that takes longer (on a dead network disk, say) no longer counts as one of them


@dataclass(eq=False)
class Swapper:
    """Follows the registry's aliases: loads the version that each one points to, and installs it in this process."""

    _models: ServedModels
    _following: Following
    _loader: VersionLoader
    _classes: ClassWeights
    metrics: InitVar[Metrics]

    def __post_init__(self, metrics: Metrics) -> None:
        self._metrics = SwapMetrics(metrics)
        self._aliases, self._state = self._following.aliases, self._following.state
        self._moved = asyncio.Event()
        self._polling: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[Sequence[Alias]] | None = None
        self._staging: set[asyncio.Task[None]] = set()
        self._is_full = False
        """Whether an alias had to wait in this round, because enough versions were being loaded."""

    async def start(self) -> None:
        """Read the aliases, wait a limited time until their versions are loaded, then follow the aliases."""
        await self._poll()
        if self._aliases.read_at is None and self._state.remembered is not None:
            logger.warning("The aliases cannot be read. This process follows them as it last read them.")
            self._follow_all(self._state.remembered.aliases)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT_S):
                while self._staging:
                    await asyncio.wait(self._staging, return_when=asyncio.FIRST_COMPLETED)
                    if self._is_full:
                        self._follow_all([followed.wanted for followed in self._aliases.by_name.values()])
        self._polling = asyncio.create_task(self._poll_for_ever(), name="aliases")

    async def close(self) -> None:
        tasks = [*self._staging, *([] if self._polling is None else [self._polling])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reading is not None:  # it holds a connection, which is closed only once it is returned
            await asyncio.wait([self._reading], timeout=CLOSE_TIMEOUT_S)

    def look_now(self) -> None:
        """Read the aliases at once, because one was moved through this process."""
        self._moved.set()

    async def _poll_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._moved.wait()
            self._moved.clear()
            try:
                await self._poll()
            except Exception:
                logger.exception("The process could not follow the aliases. It tries again.")

    async def _poll(self) -> None:
        try:
            self._reading = asyncio.create_task(in_own_thread(self._read, "read aliases"))
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            async with asyncio.timeout(READ_TIMEOUT_S):
                aliases = await asyncio.shield(self._reading)
        except Exception as error:
            self._note_away(error)
            return
        self._note_read()
        self._follow_all(aliases)

    def _read(self) -> Sequence[Alias]:
        """Read the aliases, and record them before they are followed.

        Runs in a thread. Raises RegistryBehind.
        """
        aliases = self._following.read_aliases()
        # Check, record, follow: an older registry must not replace the state that tells that it is older.
        self._state.check_not_behind(aliases)
        self._state.record(aliases)
        return aliases

    def _follow_all(self, aliases: Sequence[Alias]) -> None:
        followed = self._aliases.by_name
        living = [alias for alias in aliases if alias.removed_at is None]
        names = {alias.name for alias in living}
        removed = {alias.name for alias in aliases} - names
        for name in followed.keys() - names:
            if name in removed:
                self._remove(name)
            elif self._models.current(name) is None:  # it came from an old state, and there is no such alias
                del followed[name]
        references = {DEFAULT, *(model.name for model in self._models)}
        self._aliases.unaliased |= references - names - followed.keys()
        self._is_full = False
        for alias in living:
            self._follow(alias)

    def _remove(self, name: str) -> None:
        del self._aliases.by_name[name]
        self._models.remove(name)
        self._forget_unheld()
        logger.info("The alias was removed, and answers no more.", extra={"fields": {"model": name}})

    def _follow(self, alias: Alias) -> None:
        followed = self._aliases.by_name.setdefault(alias.name, FollowedAlias(alias))
        followed.wanted = alias
        now = time.monotonic()
        current = self._models.current(alias.name)
        wanted = alias.name, alias.version, alias.generation
        # The names are compared too, because `default` may still be served by a reference.
        if current is not None and (current.name, current.clip.version, current.generation) == wanted:
            self._prepare_rollback(followed, current, now)
        elif followed.is_due(now) and self._has_room(now):
            self._begin(followed, alias.version, self._stage(followed, alias.version))

    def _prepare_rollback(self, followed: FollowedAlias, current: ModelHandle, now: float) -> None:
        """Load the version that a rollback leads to, if it is not the one that was just replaced.

        That is so after a rollback. A process that has swapped nothing since its start keeps nothing ready.
        """
        previous, replaced = followed.wanted.previous, self._models.replaced(current)
        if (
            previous is None
            or replaced is None
            or followed.previous_tried == (followed.wanted.generation, previous)
        ):
            return
        if not self._has_room(now):
            return
        followed.previous_tried = followed.wanted.generation, previous
        if replaced.clip.version != previous and previous not in followed.staging:
            self._begin(followed, previous, self._keep(followed, previous))

    def _begin(self, followed: FollowedAlias, version: str, load: Coroutine[None, None, None]) -> None:
        followed.staging[version] = time.monotonic()
        task = asyncio.create_task(load, name=f"stage {followed.wanted.name}")
        self._staging.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._staging.discard(task)
        if self._is_full:
            self.look_now()

    def _has_room(self, now: float) -> bool:
        """Whether another load may begin. If not, the aliases are read again as soon as one has ended."""
        if not self._is_full:
            begun = (at for followed in self._aliases.by_name.values() for at in followed.staging.values())
            self._is_full = sum(now - at < STUCK_AFTER_S for at in begun) >= MAX_STAGING
        return not self._is_full

    async def _stage(self, followed: FollowedAlias, version: str) -> None:
        try:
            clip = await self._load(followed.wanted.name, version)
            if self._follows(followed) and followed.wanted.version == version:
                self._put(followed.wanted, clip, time.monotonic() - followed.staging[version])
        except Exception as error:
            if self._follows(followed) and followed.wanted.version == version:
                self._fail(followed, error)
        finally:
            del followed.staging[version]

    def _follows(self, followed: FollowedAlias) -> bool:
        """Whether an alias was not removed while one of its versions was loaded."""
        return self._aliases.by_name.get(followed.wanted.name) is followed

    async def _keep(self, followed: FollowedAlias, version: str) -> None:
        try:
            clip = await self._loader.load(version, by_alias=True)
            # A rollback may have happened meanwhile. Then the next round installs these weights.
            if self._follows(followed) and version in (followed.wanted.previous, followed.wanted.version):
                self._models.keep(followed.wanted.name, clip)
        except Exception as error:
            logger.warning(
                "The version that a rollback of the alias %s leads to cannot be loaded. Reason: %s",
                followed.wanted.name,
                first_line(error),
            )
        finally:
            del followed.staging[version]

    async def _load(self, name: str, version: str) -> Clip:
        clip = await self._loader.load(version, by_alias=True)
        # Awaited before the version serves: a process that is killed starts with a copy of what it answered with.
        keeping = in_own_thread(lambda: self._state.keep(version), f"keep {version[:12]}")
        await asyncio.gather(keeping, self._prepare_classes(name, clip))
        return clip

    async def _prepare_classes(self, name: str, clip: Clip) -> None:
        if (current := self._models.current(name)) is not None:
            await self._classes.prepare(ModelHandle(name, 0, clip), current, timeout_s=PREPARE_TIMEOUT_S)

    def _put(self, wanted: Alias, clip: Clip, seconds: float) -> None:
        self._models.replace(wanted.name, clip, wanted.generation)
        self._forget_unheld()
        self._metrics.swaps.labels(wanted.name, "swapped").inc()
        self._metrics.seconds.observe(seconds)
        logger.info("The version is in service.", extra={"fields": _fields(wanted)})

    def _forget_unheld(self) -> None:
        self._classes.give_up_all_but({held.key for held in self._models.held()})

    def _fail(self, followed: FollowedAlias, error: Exception) -> None:
        wanted, last = followed.wanted, followed.failure
        attempts = last.attempts + 1 if last is not None and followed.has_failed else 1
        pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(attempts - 1, 16))
        is_known = isinstance(error, ModelError | ServiceError)
        followed.failure = FailedLoad(
            version=wanted.version,
            generation=wanted.generation,
            at=time.time(),
            code=error.code if isinstance(error, ModelError | ServiceError) else "internal_error",
            reason=str(error) if is_known else f"{type(error).__name__}: {first_line(error)}",
            attempts=attempts,
        )
        followed.retry_at = time.monotonic() + pause_s
        self._metrics.swaps.labels(wanted.name, "failed").inc()
        logger.warning(
            "A version cannot be loaded. The weights in service stay. The next try is in %g s. Reason: %s",
            pause_s,
            followed.failure.reason,
            exc_info=None if is_known else error,
            extra={"fields": _fields(wanted)},
        )

    def _note_away(self, error: Exception) -> None:
        slow = isinstance(error, TimeoutError)
        reason = (
            f"no answer within {READ_TIMEOUT_S:g} s"
            if slow
            else f"{type(error).__name__}: {first_line(error)}"
        )
        if self._aliases.away is None:
            logger.warning("The aliases cannot be read. The weights in service stay. Reason: %s", reason)
        self._aliases.away = reason
        self._metrics.source_up.set(False)

    def _note_read(self) -> None:
        if self._aliases.away is not None:
            logger.info("The aliases can be read again.")
        self._aliases.away, self._aliases.read_at = None, time.time()
        self._metrics.source_up.set(True)


class SwapMetrics:
    """Swaps and failed loads by alias, the time to prepare a version, and whether the aliases can be read."""

    def __init__(self, metrics: Metrics) -> None:
        registry = metrics.registry
        self.swaps = Counter(
            "sds_clip_swaps",
            "The number of versions that were put into service, or that failed to load.",
            ["model", "result"],
            registry=registry,
        )
        self.seconds = Histogram(
            "sds_clip_swap_seconds",
            "The time to load a version and make it ready, in seconds.",
            buckets=SECONDS,
            registry=registry,
        )
        # A counter that first appears with the value 1 has no increase, so those of the usual alias begin with 0.
        for result in ("swapped", "failed"):
            self.swaps.labels(DEFAULT, result)
        self.source_up = Gauge(
            "sds_clip_alias_source_up", "1 while the aliases can be read.", registry=registry
        )


def _fields(alias: Alias) -> dict[str, object]:
    return {"model": alias.name, "version": alias.version, "generation": alias.generation}
