"""Versions that requests name by hash: loaded on first use, and the least recently used dropped."""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from sds_clip.app.budgets import Budget
from sds_clip.app.errors import (
    AmbiguousName,
    ServiceError,
    Unavailable,
    UnknownRecord,
    VersionDamaged,
    VersionLoading,
    VersionUnusable,
)
from sds_clip.app.joined_calls import JoinedCalls
from sds_clip.app.keys import Caller
from sds_clip.app.registry.manifest import DamagedFiles
from sds_clip.app.serving.loading import UnknownVersion, VersionLoader
from sds_clip.app.serving.seen_versions import SeenVersions
from sds_clip.app.serving.served_models import ModelHandle, ServedModels
from sds_clip.app.store.names import only
from sds_clip.app.threads import in_own_thread
from sds_clip.models.checkpoints.references import is_prefix, is_version
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.sharing import HeldNetworks
from sds_clip.models.errors import ModelError, first_line

logger = logging.getLogger(__name__)

MAX_LOADS = 2  # a load reads and hashes on one core, which requests need too
MAX_WAITING_LOADS = 256
MAX_LOADS_PER_KEY = MAX_WAITING_LOADS // 8
MAX_VERSIONS = 10_000
WAIT_S = 10.0  # for a version that loads; then the request gets a 503
MAX_FAILURES = 64
# Not every request that names a damaged version should read its gigabytes again.
RETRY_FAILED_AFTER_S = 30.0
AWAY_RETRY_S = 5


@dataclass(eq=False)
class VersionCache:
    """Keeps at most MAX_VERSIONS, and at most `max_bytes` of memory not shared with served models."""

    models: ServedModels
    loader: VersionLoader
    max_bytes: int

    def __post_init__(self) -> None:
        self._cached: OrderedDict[str, ModelHandle] = OrderedDict()
        # A sum of sizes, as in a library's LRU cache, would be wrong: deltas share their base with each other
        # and with served models.
        self._held = HeldNetworks()
        self._seen = SeenVersions(self.loader)
        self._failures: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        """For versions that could not be loaded: when that was, and whether the version was damaged."""
        self._loads = JoinedCalls[str, ModelHandle | None]()
        self._begun = Budget(
            None,
            limit="max_version_loads_per_key",
            per_key=MAX_LOADS_PER_KEY,
            retry_after_s=lambda: math.ceil(self._load_s),
        )
        """The loads that have not ended, by the key that began them."""
        self._slots = asyncio.Semaphore(MAX_LOADS)
        self._load_s = 1.0  # duration of the last load, which becomes Retry-After; initially a guess

    async def get(self, name: str | None, caller: Caller) -> ModelHandle | None:
        """The version with that hash. None for any other name, and for a version that is not published here.

        To a caller, versions that it does not see are not published.

        Raises VersionLoading if loading takes longer than a request waits, KeyLimitReached, VersionDamaged,
        VersionUnusable, Unavailable.
        """
        if name is None or not is_version(name) or self.models.current(name) is not None:
            return None
        if not await self._is_seen(name, caller.sees):
            if caller.sees is None:
                self._drop(name)
            return None
        if name in self._cached:
            self._cached.move_to_end(name)
            return self._cached[name]
        clip = self.loader.loaded(name)
        if clip is not None:
            return self._add(name, clip)
        try:
            # A caller that gives up does not stop the load, and its result is kept.
            async with asyncio.timeout(WAIT_S):
                return await self._load_of(name, caller.name)
        except TimeoutError:
            raise self._loading(name) from None

    async def id_of(self, prefix: str | None, caller: Caller) -> str | None:
        """The version that the caller sees and whose id begins so. None if there is none.

        Each call asks the registry. Raises AmbiguousName, Unavailable.
        """
        if prefix is None or not is_prefix(prefix):
            return None
        try:
            begun = partial(self.loader.registry.begun, prefix, caller.sees)
            found = await in_own_thread(begun, "look up a prefix")
        except Exception as error:  # the registry is unavailable
            raise _away(prefix, error) from error
        served = (model.clip.version for model in self.models)
        ids = {*found, *(version for version in served if version.startswith(prefix))}
        try:
            return only(prefix, ids)
        except UnknownRecord:
            return None
        except AmbiguousName as error:
            error.param = "model"
            raise

    async def close(self) -> None:
        await self._loads.close()

    async def _is_seen(self, version: str, owner: str | None) -> bool:
        """Whether an owner sees a version. Everyone sees what is served under a name."""
        if owner is None and version not in self._cached and self.loader.loaded(version) is None:
            return True  # loading it tells whether it is published
        if any(model.clip.version == version for model in self.models):
            return True
        try:
            return await self._seen.has(version, owner)
        except Exception as error:  # the registry is unavailable
            raise _away(version, error) from error

    async def _load_of(self, version: str, key: str) -> ModelHandle | None:
        if version not in self._loads:
            self._refuse_failed(version)
            self._begun.take(1, key)
            if len(self._loads) >= MAX_WAITING_LOADS:
                self._begun.give_back(1, key)
                raise self._loading(version)
        return await self._loads.run(
            version, lambda: self._load_in_turn(version, key), f"named {version[:12]}"
        )

    async def _load_in_turn(self, version: str, key: str) -> ModelHandle | None:
        try:
            async with self._slots:
                return await self._load(version)
        finally:
            self._begun.give_back(1, key)

    async def _load(self, version: str) -> ModelHandle | None:
        started_at = time.monotonic()
        try:
            clip = await self.loader.load(version)
        except UnknownVersion:
            return None
        except ModelError as error:
            raise self._failed(version, error) from error
        except ServiceError:
            raise
        except Exception as error:  # the registry is unavailable
            raise _away(version, error) from error
        self._load_s = time.monotonic() - started_at
        return self._add(version, clip)

    def _add(self, version: str, clip: Clip) -> ModelHandle:
        if version in self._cached:
            return self._cached[version]
        self._cached[version] = model = ModelHandle(version, 1, clip)
        self._held.add(clip.network)
        self._seen.note(version)
        while len(self._cached) > MAX_VERSIONS or self._bytes() > self.max_bytes:
            oldest = next(iter(self._cached))
            self._drop(oldest)
            if oldest == version:
                logger.warning("Version %s is larger than SDS_CLIP_MAX_VERSION_BYTES allows.", version[:12])
                raise VersionUnusable(
                    "This version needs more memory than the server may use for versions; its operator can raise "
                    "SDS_CLIP_MAX_VERSION_BYTES.",
                    param="model",
                )
        return model

    def _drop(self, version: str) -> None:
        model = self._cached.pop(version, None)
        if model is not None:
            self._held.remove(model.clip.network)
            self._seen.forget(version)

    def _bytes(self) -> int:
        return self._held.bytes_apart(model.clip.network for model in self.models.held())

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


def _away(version: str, error: Exception) -> Unavailable:
    logger.warning(
        "Version %s cannot be looked up: %s: %s", version[:12], type(error).__name__, first_line(error)
    )
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
