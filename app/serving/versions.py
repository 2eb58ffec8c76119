"""Versions that requests name by their hash: loaded when first asked for, the least recently used dropped."""

import asyncio
import logging
import math
import time
from collections import OrderedDict

from cachetools import LRUCache

from app.errors import ServiceError, Unavailable
from app.limits import Limits
from app.registry.manifest import DamagedVersion
from app.schemas.classify import ClassifyRequest, ClassifyResponse
from app.schemas.embed import EmbedRequest, EmbedResponse
from app.schemas.match import MatchRequest, MatchResponse
from app.serving.classes import ClassWeights
from app.serving.engine import Engine
from app.serving.inference import Inference
from app.serving.loading import UnknownVersion, VersionLoader
from app.serving.pixels import ImageReader
from app.serving.served import Served, ServedModels
from app.store.errors import VersionDamaged
from models.errors import ModelError
from models.references import is_version
from models.sharing import bytes_apart

logger = logging.getLogger(__name__)

MAX_LOADS = 4
MAX_FAILURES = 64
RETRY_FAILED_AFTER_S = 30.0
AWAY_RETRY_S = 5
LOOK_UP_EVERY_S = 2.0


class VersionLoading(Unavailable):
    """A version that was named is still being loaded."""

    code = "version_loading"


class VersionUnusable(Unavailable):
    """A version that was named is here and cannot be loaded; the log has the reason."""

    code = "version_unusable"


class NamedVersions:
    """Keeps at most `max_count` versions, and `max_bytes` of memory that they share with nothing else served."""

    def __init__(
        self, models: ServedModels, loader: VersionLoader, *, max_count: int, max_bytes: int, wait_s: float
    ) -> None:
        self._models = models
        self._loader = loader
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._wait_s = wait_s
        self._kept: OrderedDict[str, Served] = OrderedDict()
        self._failed_at: LRUCache[str, tuple[float, bool]] = LRUCache(MAX_FAILURES)
        """When a version could not be loaded, and whether it was damaged."""
        self._loads: dict[str, asyncio.Task[None]] = {}
        self._load_s = 1.0
        self._looked_up_at: dict[str, float] = {}
        models.version_named = self._kept.get

    async def ready(self, name: str | None) -> None:
        """Return once `ServedModels.resolve` can answer for `name`, be it that nobody knows it.

        Raises VersionLoading while it is being loaded for longer than a request waits, VersionDamaged,
        VersionUnusable.
        """
        if name is None or self._models.current(name) is not None or not is_version(name):
            return
        if name in self._kept:
            self._kept.move_to_end(name)
            if await self._was_deleted(name):
                self._kept.pop(name, None)
            return
        clip = self._loader.loaded(name)
        if clip is not None:
            self._keep(Served(name, 1, clip))
            return
        try:
            # The loading goes on, and what it gives is kept, when whoever asked first gives up.
            async with asyncio.timeout(self._wait_s):
                await asyncio.shield(self._load_of(name))
        except TimeoutError:
            raise self._loading(name) from None

    async def _was_deleted(self, name: str) -> bool:
        """Whether a kept version is there no more; looked up now and then, and not while that is impossible."""
        now = time.monotonic()
        if now - self._looked_up_at[name] < LOOK_UP_EVERY_S:
            return False
        self._looked_up_at[name] = now
        try:
            return not await self._loader.exists(name)
        except Exception:  # whoever keeps the versions is away
            return False

    def held(self) -> list[Served]:
        """The versions kept at the moment."""
        return list(self._kept.values())

    async def close(self) -> None:
        """Wait for nothing any more."""
        for task in self._loads.values():
            task.cancel()
        await asyncio.gather(*self._loads.values(), return_exceptions=True)

    def _load_of(self, version: str) -> "asyncio.Task[None]":
        """The one loading of a version, begun if need be."""
        if version in self._loads:
            return self._loads[version]
        self._refuse_failed(version)
        if len(self._loads) >= MAX_LOADS:
            raise self._loading(version)
        task = asyncio.create_task(self._load(version), name=f"named {version[:12]}")
        self._loads[version] = task
        task.add_done_callback(lambda task: self._ended(version, task))
        return task

    def _ended(self, version: str, task: "asyncio.Task[None]") -> None:
        del self._loads[version]
        if not task.cancelled():
            task.exception()  # nobody may wait for it any more

    async def _load(self, version: str) -> None:
        started_at = time.monotonic()
        try:
            clip = await self._loader.load(version)
        except UnknownVersion:
            return  # `resolve` has the words for that
        except ModelError as error:
            raise self._failed(version, error) from error
        except ServiceError:
            raise
        except Exception as error:  # whoever keeps the versions is away
            logger.exception("version %s cannot be looked up", version[:12])
            raise Unavailable(
                "Versions cannot be looked up at the moment; send the request again later.",
                param="model",
                retry_after_s=AWAY_RETRY_S,
            ) from error
        self._load_s = time.monotonic() - started_at
        self._keep(Served(version, 1, clip))

    def _keep(self, served: Served) -> None:
        self._kept[served.name] = served
        self._looked_up_at = {name: self._looked_up_at.get(name, 0.0) for name in self._kept}
        self._looked_up_at[served.name] = time.monotonic()
        while len(self._kept) > self._max_count or self._bytes() > self._max_bytes:
            dropped, _ = self._kept.popitem(last=False)
            if dropped == served.name:
                logger.warning("version %s is larger than all that may be kept of versions", dropped[:12])
                raise VersionUnusable(
                    "This version is larger than this server may keep beside what it serves; the operator can "
                    "raise SDS_CLIP_MAX_VERSION_BYTES.",
                    param="model",
                )

    def _bytes(self) -> int:
        others = [served.clip.network for served in self._models.held()]
        return bytes_apart((served.clip.network for served in self._kept.values()), others)

    def _loading(self, version: str) -> VersionLoading:
        return VersionLoading(
            f"Version {version[:12]} is being loaded; send the same request again later.",
            param="model",
            retry_after_s=max(1, math.ceil(self._load_s)),
        )

    def _failed(self, version: str, error: ModelError) -> ServiceError:
        logger.error("version %s cannot be loaded: %s", version[:12], error)
        is_damaged = isinstance(error, DamagedVersion)
        self._failed_at[version] = time.monotonic(), is_damaged
        return _unusable(version, RETRY_FAILED_AFTER_S, is_damaged)

    def _refuse_failed(self, version: str) -> None:
        """A version that failed is not read again for every request that names it."""
        if version not in self._failed_at:
            return
        failed_at, is_damaged = self._failed_at[version]
        remaining_s = failed_at + RETRY_FAILED_AFTER_S - time.monotonic()
        if remaining_s > 0:
            raise _unusable(version, remaining_s, is_damaged)
        del self._failed_at[version]


class VersionedInference(Inference):
    """Answers as `Inference` does, after the version that a request names is there."""

    def __init__(
        self,
        versions: NamedVersions,
        engine: Engine,
        images: ImageReader,
        classes: ClassWeights,
        limits: Limits,
    ) -> None:
        super().__init__(engine, images, classes, limits)
        self._versions = versions

    async def match(self, request: MatchRequest) -> MatchResponse:
        """Score every text against every image."""
        await self._versions.ready(request.model)
        return await super().match(request)

    async def classify(self, request: ClassifyRequest) -> ClassifyResponse:
        """Find each image's most probable labels."""
        await self._versions.ready(request.model)
        return await super().classify(request)

    async def embed(self, request: EmbedRequest) -> EmbedResponse:
        """Encode images or texts."""
        await self._versions.ready(request.model)
        return await super().embed(request)


def _unusable(version: str, retry_after_s: float, is_damaged: bool) -> ServiceError:
    if is_damaged:
        return VersionDamaged(version, param="model")
    return VersionUnusable(
        f"Version {version[:12]} is here and cannot be loaded; the server's log says why. Name another, or ask "
        "its operator to publish it anew.",
        param="model",
        retry_after_s=math.ceil(retry_after_s),
    )
