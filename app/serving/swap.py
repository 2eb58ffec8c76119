"""Hot swap: follow the aliases, make the weights ready aside, then put them in place with one assignment.

    read the aliases (every second) -> load, verify, lay over the base (a thread of its own)
      -> golden inputs and warm-up (the forward thread) -> label sets in use, behind requests -> one assignment

A version that cannot be loaded changes nothing: the alias serves on what it serves, says why (`report`, metrics,
log), tries again with longer and longer pauses, and takes any other version that it is moved to meanwhile.

A process that starts while the aliases cannot be read follows those that it read last (`app.registry.local_state`).
Where it knows none, or has not loaded what an alias points at, nothing answers for that name: never other weights.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.errors import ModelNotReady, RegistryAway, ServiceError
from app.registry.local_state import LocalState
from app.registry.ports import AliasSource, AliasState
from app.serving.classes import ClassWeights
from app.serving.loading import VersionLoader
from app.serving.served import Served, ServedModels
from app.serving.swap_metrics import SwapMetrics
from app.store.alias_names import DEFAULT, may_be_alias
from app.store.errors import VersionDamaged
from app.threads import in_own_thread
from models.clip import Clip
from models.errors import ModelError
from models.tokenizers import first_line

logger = logging.getLogger(__name__)

READ_TIMEOUT_S = 10.0
START_TIMEOUT_S = 60.0
CLOSE_TIMEOUT_S = 2.0
PREPARE_TIMEOUT_S = 1.0
FIRST_RETRY_S = 1.0
LAST_RETRY_S = 60.0
NOT_READY_RETRY_S = 5
MAX_STAGING = 4
STUCK_AFTER_S = 60.0  # a load that hangs, on a dead network disk say, takes no place from those that work


@dataclass(frozen=True)
class Failure:
    """A version that an alias points at and that could not be loaded."""

    version: str
    generation: int
    at: float
    """Seconds since the epoch."""
    code: str
    reason: str
    attempts: int
    retry_at: float
    """Seconds on the monotonic clock."""


@dataclass(eq=False)
class Followed:
    """One alias: where it points, and what is being done about it."""

    wanted: AliasState
    staging: dict[str, float] = field(default_factory=dict)
    """Versions that are being made ready, and since when on the monotonic clock."""
    failure: Failure | None = None
    """The last one."""

    def is_due(self, now: float) -> bool:
        """Whether the wanted version is to be loaded now: nobody does, and it did not fail just before."""
        if self.wanted.version in self.staging:
            return False
        failed = self.failure
        same = failed is not None and (failed.version, failed.generation) == _place(self.wanted)
        return not same or failed is None or now >= failed.retry_at


class Swapper:
    """Keeps what every alias serves in this process at what the alias source says."""

    def __init__(
        self,
        models: ServedModels,
        loader: VersionLoader,
        classes: ClassWeights,
        aliases: AliasSource | None,
        metrics: SwapMetrics,
        *,
        poll_s: float,
        state: LocalState | None = None,
    ) -> None:
        self._models = models
        self._loader = loader
        self._classes = classes
        self._aliases = aliases
        self._metrics = metrics
        self._poll_s = poll_s
        self._state = state
        self._polling: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[Sequence[AliasState]] | None = None
        self._staging: set[asyncio.Task[None]] = set()
        self.followed: dict[str, Followed] = {}
        self.read_at: float | None = None
        """When the aliases were last read, in seconds since the epoch."""
        self.away: str | None = None
        """Why they cannot be read at the moment."""
        self._not_aliased = set[str]()
        """Names of references that no alias had when that was last known: their references answer for them."""
        if aliases is not None:
            models.withheld = self._withheld

    @property
    def source(self) -> Literal["none", "registry", "state"]:
        """Where the aliases that are followed were read."""
        if self.read_at is not None:
            return "registry"
        return "none" if self._state is None or self._state.remembered is None else "state"

    @property
    def last_read_at(self) -> float | None:
        """When they were read last, in this run of the process or an earlier one; in seconds since the epoch."""
        if self.read_at is None and self._state is not None and self._state.remembered is not None:
            return self._state.remembered.read_at
        return self.read_at

    @property
    def state_error(self) -> str | None:
        """Why this process's state could not be written."""
        return None if self._state is None else self._state.error

    def is_copy(self, served: Served) -> bool:
        """Whether the weights are this process's own copy."""
        return self._loader.is_copy(served.clip)

    async def start(self) -> None:
        """Read the aliases and wait for what they point at, within reason; then follow them."""
        if self._aliases is None:
            return
        await self._poll(self._aliases)
        if self.read_at is None and self._state is not None and self._state.remembered is not None:
            logger.warning("following the aliases as this process read them last")
            self._follow_all(self._state.remembered.aliases)
        if self._staging:
            await asyncio.wait(self._staging, timeout=START_TIMEOUT_S)
        self._polling = asyncio.create_task(self._poll_for_ever(self._aliases), name="aliases")

    async def close(self) -> None:
        """Follow no more."""
        tasks = [*self._staging, *([] if self._polling is None else [self._polling])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reading is not None:  # it holds a connection, which is closed only once it is given back
            await asyncio.wait([self._reading], timeout=CLOSE_TIMEOUT_S)

    async def _poll_for_ever(self, aliases: AliasSource) -> None:
        while True:
            await asyncio.sleep(self._poll_s)
            try:
                await self._poll(aliases)
            except Exception:
                logger.exception("following the aliases failed; trying again")

    async def _poll(self, aliases: AliasSource) -> None:
        try:
            self._reading = asyncio.create_task(in_own_thread(lambda: self._read(aliases), "read aliases"))
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
            async with asyncio.timeout(READ_TIMEOUT_S):
                states = await asyncio.shield(self._reading)
        except Exception as error:
            self._note_away(error)
            return
        self._note_read()
        self._follow_all(states)

    def _read(self, aliases: AliasSource) -> Sequence[AliasState]:
        """In a thread: the aliases, which are recorded before they are followed. Raises RegistryBehind."""
        states = aliases.read()
        if self._state is not None:
            self._state.check_not_behind(states)
            self._state.record(states)
        return states

    def _follow_all(self, states: Sequence[AliasState]) -> None:
        names = {state.name for state in states}
        for name in self.followed.keys() - names:
            if self._models.current(name) is None:  # it came from an old state, and there is no such alias
                del self.followed[name]
        references = {DEFAULT, *(served.name for served in self._models)}
        self._not_aliased |= references - names - self.followed.keys()
        for state in states:
            self._follow(state)

    def _withheld(self, name: str) -> ServiceError | None:
        """Why nothing answers for a name that serves no alias here."""
        if name in self._not_aliased:
            return None
        if (followed := self.followed.get(name)) is not None:
            return _not_loaded(followed)
        if (self.read_at is None or self.away is not None) and may_be_alias(name):
            return RegistryAway(
                f"Which version {name} stands for cannot be read at the moment; send the request again later.",
                param="model",
                retry_after_s=NOT_READY_RETRY_S,
            )
        return None

    def _follow(self, state: AliasState) -> None:
        followed = self.followed.setdefault(state.name, Followed(state))
        followed.wanted = state
        current = self._models.current(state.name)
        if _is_served(current, state):
            return
        now = time.monotonic()
        if followed.is_due(now) and self._working(now) < MAX_STAGING:
            followed.staging[state.version] = now
            task = asyncio.create_task(self._stage(followed, state.version), name=f"stage {state.name}")
            self._staging.add(task)
            task.add_done_callback(self._staging.discard)

    def _working(self, now: float) -> int:
        begun = (at for followed in self.followed.values() for at in followed.staging.values())
        return sum(now - at < STUCK_AFTER_S for at in begun)

    async def _stage(self, followed: Followed, version: str) -> None:
        """Make a version ready, and serve it if the alias still points at it then."""
        try:
            clip = await self._load(followed.wanted.name, version)
        except Exception as error:
            if followed.wanted.version == version:
                self._fail(followed, error)
        else:
            if followed.wanted.version == version:
                self._put(followed.wanted, clip, time.monotonic() - followed.staging[version])
        finally:
            del followed.staging[version]

    async def _load(self, name: str, version: str) -> Clip:
        clip = await self._loader.load(version, by_alias=True)
        if (state := self._state) is not None:
            await in_own_thread(lambda: state.keep(version), f"keep {version[:12]}")
        current = self._models.current(name)
        if current is not None:
            await self._classes.prepare(Served(name, 0, clip), current, timeout_s=PREPARE_TIMEOUT_S)
        return clip

    def _put(self, wanted: AliasState, clip: Clip, seconds: float) -> None:
        self._models.replace(wanted.name, clip, wanted.generation)
        self._classes.give_up_all_but({held.key for held in self._models.held()})
        self._metrics.swapped(wanted.name, seconds)
        logger.info("swapped", extra={"fields": _fields(wanted)})

    def _fail(self, followed: Followed, error: Exception) -> None:
        wanted, last = followed.wanted, followed.failure
        again = last is not None and (last.version, last.generation) == _place(wanted)
        attempts = last.attempts + 1 if again and last is not None else 1
        pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(attempts - 1, 16))
        known = isinstance(error, ModelError | ServiceError)
        followed.failure = Failure(
            version=wanted.version,
            generation=wanted.generation,
            at=time.time(),
            code=error.code if isinstance(error, ModelError | ServiceError) else "internal_error",
            reason=str(error) if known else f"{type(error).__name__}: {first_line(error)}",
            attempts=attempts,
            retry_at=time.monotonic() + pause_s,
        )
        self._metrics.failed(wanted.name)
        logger.warning(
            "a version cannot be loaded; serving on what there is, next try in %g s: %s",
            pause_s,
            followed.failure.reason,
            exc_info=None if known else error,
            extra={"fields": _fields(wanted)},
        )

    def _note_away(self, error: Exception) -> None:
        slow = isinstance(error, TimeoutError)
        reason = (
            f"no answer in {READ_TIMEOUT_S:g} s" if slow else f"{type(error).__name__}: {first_line(error)}"
        )
        if self.away is None:
            logger.warning("the aliases cannot be read; serving on what there is: %s", reason)
        self.away = reason
        self._metrics.source_up(False)

    def _note_read(self) -> None:
        if self.away is not None:
            logger.info("the aliases can be read again")
        self.away, self.read_at = None, time.time()
        self._metrics.source_up(True)


def _not_loaded(followed: Followed) -> ServiceError:
    """Why an alias answers nothing, without what only the operator may see."""
    wanted, failure = followed.wanted, followed.failure
    if failure is None or (failure.version, failure.generation) != _place(wanted):
        reason = "is being loaded; send the request again later"
    elif failure.code == VersionDamaged.code:
        return VersionDamaged(wanted.version, param="model")
    else:
        reason = f"cannot be loaded ({failure.code}); GET /models/status and the server's log say why"
    return ModelNotReady(
        f"Version {wanted.version[:12]}, which {wanted.name} stands for, {reason}.",
        param="model",
        retry_after_s=NOT_READY_RETRY_S,
    )


def _place(state: AliasState) -> tuple[str, int]:
    return state.version, state.generation


def _is_served(current: Served | None, state: AliasState) -> bool:
    """Whether a name serves what its alias says, under its own name: `default` may be a reference until then."""
    return current is not None and (current.name, current.clip.version, current.generation) == (
        state.name,
        *_place(state),
    )


def _fields(state: AliasState) -> dict[str, object]:
    return {"model": state.name, "version": state.version, "generation": state.generation}
