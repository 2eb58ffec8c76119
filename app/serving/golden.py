"""The golden embeddings of every model in service, from which the ranges of its int8 embeddings follow.

A published version holds its own. Those of an operator's own reference are computed by the first process that needs
them. It keeps them in the data folder, so that all processes quantise alike, and later ones too.
"""

import asyncio
import logging
from pathlib import Path
from weakref import WeakKeyDictionary

from sds_clip.app.errors import Unavailable
from sds_clip.app.registry.golden_file import read_golden, write_golden
from sds_clip.app.serving.engine import Engine
from sds_clip.app.serving.loading import VersionLoader
from sds_clip.app.serving.served_models import ModelHandle
from sds_clip.models.atomic import atomic_folder
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError

logger = logging.getLogger(__name__)


class GoldenEmbeddings:
    """Finds, computes and keeps them. `folder` has a folder for each version that is not published."""

    def __init__(self, engine: Engine, loader: VersionLoader, folder: Path) -> None:
        self._engine = engine
        self._loader = loader
        self._folder = folder
        self._kept: WeakKeyDictionary[Clip, Golden] = WeakKeyDictionary()

    async def of(self, model: ModelHandle) -> Golden:
        """Raises: Unavailable if they cannot be kept or read; whatever the forward pass raises."""
        clip = model.clip
        golden = self._loader.golden(clip) or self._kept.get(clip)
        if golden is not None:
            return golden
        folder = self._folder / clip.version
        try:
            if not folder.exists():
                computed = await self._engine.compute(model, lambda: Golden.of(clip), first=False)
                await asyncio.to_thread(_keep, folder, computed)
            self._kept[clip] = golden = await asyncio.to_thread(read_golden, folder)
        except CheckpointError as error:
            logger.error("The range of version %s cannot be kept: %s", clip.version[:12], error)
            raise Unavailable(
                "The server cannot keep the range of this model's int8 embeddings; its log says why. Ask for other "
                "types, or try again later.",
                retry_after_s=5,
            ) from error
        return golden


def _keep(folder: Path, golden: Golden) -> None:
    try:
        with atomic_folder(folder) as working:
            write_golden(working, golden)
    except CheckpointError:
        if not folder.exists():  # else another process was first, and its numbers count
            raise
