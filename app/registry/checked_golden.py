"""The versions whose golden embeddings this machine has computed, so that the next load need not compute them."""

import contextlib
import importlib.metadata
import logging
from functools import cache
from pathlib import Path

import torch

from sds_clip.models.clip.model import Clip

logger = logging.getLogger(__name__)

MAX_LINES = 100_000


class Checked:
    """A file with a line for each version that was checked, and for the way in which it is computed.

    A version's files are hashed at every load. With the same program on the same kind of processor, equal files give
    equal embeddings. A line that is lost or damaged costs another check and nothing else.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lines = set[str]()
        with contextlib.suppress(OSError, UnicodeError):
            self._lines = set(file.read_text(encoding="utf-8").splitlines())
            if len(self._lines) > MAX_LINES:
                self._lines = set()
                file.unlink()

    def __contains__(self, clip: Clip) -> bool:
        return _line(clip) in self._lines

    def add(self, clip: Clip) -> None:
        line = _line(clip)
        if line in self._lines:
            return
        self._lines.add(line)
        try:
            with self._file.open("a", encoding="utf-8") as opened:
                opened.write(f"{line}\n")
        except OSError as error:
            logger.warning("%s cannot be written, so versions are checked again: %s", self._file, error)


def _line(clip: Clip) -> str:
    on_gpu = clip.device.type == "cuda"
    kind = torch.cuda.get_device_name(clip.device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    return "\t".join((clip.version, clip.precision, *_programs(), kind.replace("\t", " ")))


@cache
def _programs() -> tuple[str, ...]:
    """What computes, each with its release. Looking them up reads files."""
    names = ("sds-clip", "torch", "open_clip_torch", "timm", "transformers")
    return tuple(f"{name}-{importlib.metadata.version(name)}" for name in names)
