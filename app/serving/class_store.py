"""Class weights on disk, so that a restart does not encode 80,000 prompts again."""

import contextlib
import logging
import os
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"


class ClassStore:
    """Files named by version, precision and label set under one folder of at most `max_bytes`.

    A file appears whole or not at all; one that cannot be read is removed and counts as absent. A disk
    that is full or read-only costs only the time to encode the set again.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def read(self, version: str, precision: str, digest: str) -> Tensor | None:
        """The weights [c, d], or None."""
        path = self._path(version, precision, digest)
        try:
            weights = load_file(path)["weights"]
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, SafetensorError, KeyError) as error:
            logger.warning("class weights in %s cannot be read and are dropped: %s", path.name, error)
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):  # a folder that can only be read still serves
            os.utime(path)
        return weights

    def write(self, version: str, precision: str, digest: str, weights: Tensor) -> None:
        """Keep the weights, and drop the files used longest ago beyond the limit."""
        path = self._path(version, precision, digest)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as temporary:
                pass
            try:
                save_file({"weights": weights.contiguous()}, temporary.name)
                os.replace(temporary.name, path)
            except BaseException:
                os.unlink(temporary.name)
                raise
            self._prune()
        except (OSError, SafetensorError) as error:
            logger.warning("class weights are not kept on disk: %s", error)

    def _path(self, version: str, precision: str, digest: str) -> Path:
        return self._folder / version[:16] / f"{digest[:32]}-{precision}{SUFFIX}"

    def _prune(self) -> None:
        files = sorted(
            ((path.stat(), path) for path in self._folder.glob(f"*/*{SUFFIX}")),
            key=lambda entry: entry[0].st_mtime,
            reverse=True,
        )
        kept = 0
        for stat, path in files:
            kept += stat.st_size
            if kept > self._max_bytes:
                path.unlink(missing_ok=True)
