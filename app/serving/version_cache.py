"""Versions that requests name by hash: loaded on first use, and the least recently used dropped."""

import asyncio
import logging
import math
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from torch import nn

from app.errors import (
    KeyLimitReached,
    ServiceError,
    Unavailable,
    VersionDamaged,
    VersionLoading,
    VersionUnusable,
)
from app.joined_calls import JoinedCalls
from app.keys import Caller
from app.registry.manifest import DamagedFiles
from app.serving.loading import UnknownVersion, VersionLoader
from app.serving.served_models import ModelHandle, ServedModels
from models.clip import Clip
from models.errors import ModelError
from models.references import is_version
from models.sharing import bytes_apart, storages

logger = logging.getLogger(__name__)

MAX_LOADS = 4  # a load may read a whole model, so more at once would only slow each other down
MAX_WAITING_LOADS = 256
MAX_FAILURES = 64
# Not every request that names a damaged version should read its gigabytes again.
RETRY_FAILED_AFTER_S = 30.0
AWAY_RETRY_S = 5
# How long a version may still answer from memory after it was deleted or its alias moved. Every check costs a query.
LOOK_UP_EVERY_S = 2.0


@dataclass
class CachedVersion:
    """A version in memory, and when it was last known to be published, on the monotonic clock."""

    model: ModelHandle
    looked_up_at: float
    seen_at: dict[str, float] = field(default_factory=dict)
    """When each owner was last known to see it."""


class VersionCache:
    """Keeps at most `max_count` versions, and at most `max_bytes` of memory not shared with served models."""

    def __init__(
        self,
        models: ServedModels,
        loader: VersionLoader,
        *,
        max_count: int,
        max_bytes: int,
        max_loads_per_key: int,
        wait_s: float,
    ) -> None:
        self._models = models
        self._loader = loader
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._max_loads_per_key = max_loads_per_key
        self._wait_s = wait_s
        self._cached: OrderedDict[str, CachedVersion] = OrderedDict()
        self._failures: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        """For versions that could not be loaded: when that was, and whether the version was damaged."""
        self._loads = JoinedCalls[str, ModelHandle | None]()
        self._loads_of = Counter[str]()
        """The number of loads that each API key began and that have not ended."""
        self._slots = asyncio.Semaphore(MAX_LOADS)
        self._storages: WeakKeyDictionary[nn.Module, dict[int, int]] = WeakKeyDictionary()
        self._load_s = 1.0  # duration of the last load, which becomes Retry-After; initially a guess

    async def get(self, name: str | None, caller: Caller) -> ModelHandle | None:
        """The version with that hash. None for any other name, and for a version that is not published here.

        To a caller, versions that it does not see are not published.

        Raises VersionLoading if loading takes longer than a request waits, KeyLimitReached, VersionDamaged,
        VersionUnusable, Unavailable.
        """
        if name is None or not is_version(name) or self._models.current(name) is not None:
            return None
        if caller.sees is not None and not await self._is_seen(name, caller.sees):
            return None
        cached = self._cached.get(name)
        if cached is not None:
            self._cached.move_to_end(name)
            if await self._was_deleted(cached):
                self._cached.pop(name, None)
                return None
            return cached.model
        clip = self._loader.loaded(name)
        if clip is not None:
            return self._add(name, clip)
        try:
            # A caller that gives up does not stop the load, and its result is kept.
            async with asyncio.timeout(self._wait_s):
                return await self._load_of(name, caller.name)
        except TimeoutError:
            raise self._loading(name) from None

    async def close(self) -> None:
        await self._loads.close()

    async def _is_seen(self, version: str, owner: str) -> bool:
        """Whether an owner sees a version. Everyone sees what is served under a name.

        For a version in memory it is checked now and then, and assumed unchanged while the registry is away.
        """
        if any(model.clip.version == version for model in self._models):
            return True
        cached, now = self._cached.get(version), time.monotonic()
        seen_at = None if cached is None else cached.seen_at.get(owner)
        if seen_at is not None and now - seen_at < LOOK_UP_EVERY_S:
            return True
        try:
            is_seen = await self._loader.is_seen(version, owner)
        except Exception as error:  # the registry is unavailable
            if seen_at is not None:
                return True
            raise _away(version) from error
        if cached is not None:
            cached.seen_at[owner] = now
            if not is_seen:
                del cached.seen_at[owner]
        return is_seen

    async def _was_deleted(self, cached: CachedVersion) -> bool:
        """Whether a version in memory was deleted.

        It is checked now and then, and assumed not while the registry is away.
        """
        now = time.monotonic()
        if now - cached.looked_up_at < LOOK_UP_EVERY_S:
            return False
        cached.looked_up_at = now
        try:
            return not await self._loader.exists(cached.model.name)
        except Exception:  # the registry is unavailable
            return False

    async def _load_of(self, version: str, key: str) -> ModelHandle | None:
        if version not in self._loads:
            self._refuse_failed(version)
            if key and self._loads_of[key] >= self._max_loads_per_key:
                raise KeyLimitReached(
                    "max_version_loads_per_key",
                    self._max_loads_per_key,
                    retry_after_s=math.ceil(self._load_s),
                )
            if len(self._loads) >= MAX_WAITING_LOADS:
                raise self._loading(version)
        return await self._loads.run(
            version, lambda: self._load_in_turn(version, key), f"named {version[:12]}"
        )

    async def _load_in_turn(self, version: str, key: str) -> ModelHandle | None:
        self._loads_of[key] += 1
        try:
            async with self._slots:
                return await self._load(version)
        finally:
            self._loads_of[key] -= 1
            if not self._loads_of[key]:
                del self._loads_of[key]

    async def _load(self, version: str) -> ModelHandle | None:
        started_at = time.monotonic()
        try:
            clip = await self._loader.load(version)
        except UnknownVersion:
            return None
        except ModelError as error:
            raise self._failed(version, error) from error
        except ServiceError:
            raise
        except Exception as error:  # the registry is unavailable
            raise _away(version) from error
        self._load_s = time.monotonic() - started_at
        return self._add(version, clip)

    def _add(self, version: str, clip: Clip) -> ModelHandle:
        model = ModelHandle(version, 1, clip)
        self._cached[version] = CachedVersion(model, time.monotonic())
        while len(self._cached) > self._max_count or self._bytes() > self._max_bytes:
            dropped, _ = self._cached.popitem(last=False)
            if dropped == version:
                logger.warning("Version %s is larger than SDS_CLIP_MAX_VERSION_BYTES allows.", version[:12])
                raise VersionUnusable(
                    "This version needs more memory than the server may use for versions; its operator can raise "
                    "SDS_CLIP_MAX_VERSION_BYTES.",
                    param="model",
                )
        return model

    def _bytes(self) -> int:
        # A sum of sizes, as in a library's LRU cache, would be wrong: deltas share their base with each other
        # and with served models.
        others = [model.clip.network for model in self._models.held()]
        own = (cached.model.clip.network for cached in self._cached.values())
        return bytes_apart(own, others, self._storages_of)

    def _storages_of(self, network: nn.Module) -> dict[int, int]:
        """What `storages` finds, remembered: walking through a network takes a millisecond."""
        if network not in self._storages:
            self._storages[network] = storages(network)
        return self._storages[network]

    def _loading(self, version: str) -> VersionLoading:
        return VersionLoading(
            f"Version {version[:12]} is being loaded; send the same request again later.",
            param="model",
            retry_after_s=max(1, math.ceil(self._load_s)),
        )

    def _failed(self, version: str, error: ModelError) -> ServiceError:
        logger.error("Version %s cannot be loaded: %s", version[:12], error)
        is_damaged = isinstance(error, DamagedFiles)
        self._failures[version] = time.monotonic(), is_damaged
        while len(self._failures) > MAX_FAILURES:
            self._failures.popitem(last=False)
        return _unusable(version, RETRY_FAILED_AFTER_S, is_damaged)

    def _refuse_failed(self, version: str) -> None:
        if version not in self._failures:
            return
        failed_at, is_damaged = self._failures[version]
        remaining_s = failed_at + RETRY_FAILED_AFTER_S - time.monotonic()
        if remaining_s > 0:
            raise _unusable(version, remaining_s, is_damaged)
        del self._failures[version]


def _away(version: str) -> Unavailable:
    logger.exception("Version %s cannot be looked up.", version[:12])
    return Unavailable(
        "The server cannot look up versions at the moment; send the request again later.",
        param="model",
        retry_after_s=AWAY_RETRY_S,
    )


def _unusable(version: str, retry_after_s: float, is_damaged: bool) -> ServiceError:
    if is_damaged:
        return VersionDamaged(version, param="model")
    return VersionUnusable(
        f"The server has version {version[:12]}, but cannot load it; the server's log says why. Name another "
        "version, or ask the operator to publish this one again.",
        param="model",
        retry_after_s=math.ceil(retry_after_s),
    )
