"""Features that jobs share: DATA_DIR/features/, a folder for each version, precision, kind of device and code.

They outlive what they were computed from, until others take their room.

One job at a time has a folder. Another one that needs it meanwhile computes into its own, as if nothing were kept.
"""

import contextlib
import shutil
from pathlib import Path

from models.clip import Clip
from models.evaluation.errors import StoreInUse
from models.evaluation.feature_store import drop_store
from models.evaluation.scorers import ClipScorer
from worker.context import JobContext


def open_scorer(context: JobContext, clip: Clip, *, batch_size: int) -> ClipScorer:
    """A scorer over the features that are kept of this version, by whichever job."""
    try:
        return ClipScorer(clip, context.config.features_dir, batch_size=batch_size)
    except StoreInUse:
        return ClipScorer(clip, context.folder.take_over_work("features"), batch_size=batch_size)


def keep_within(folder: Path, max_bytes: int) -> None:
    """Drop what was used longest ago until the rest has `max_bytes` at most. What is in use stays."""
    with contextlib.suppress(FileNotFoundError):  # there is nothing yet, or another worker drops some too
        for rubbish in folder.glob(".*"):
            shutil.rmtree(rubbish, ignore_errors=True)
        stores = [each for each in folder.glob("[!.]*") if each.is_dir()]
        kept = sum(map(_size, stores))
        for oldest in sorted(stores, key=_used_at):
            if kept <= max_bytes:
                return
            size = _size(oldest)
            if drop_store(oldest, "images"):  # which a scorer opens first
                kept -= size


def _size(store: Path) -> int:
    return sum(file.stat().st_size for file in store.iterdir())


def _used_at(store: Path) -> float:
    return max((file.stat().st_mtime for file in store.iterdir()), default=0.0)
