"""CLIP_benchmark's WebDataset layout of a labelled set.

classnames.txt                          a class a line
zeroshot_classification_templates.txt   a template a line, with {c}
test/0.tar, test/1.tar, ...             KEY.jpg (png, webp) with KEY.cls, the number of its class
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from models.evaluation.errors import EvaluationError
from models.evaluation.items import ArchiveImage
from models.evaluation.results import ImageRegion

CLASSNAMES, TEMPLATES, SPLIT = "classnames.txt", "zeroshot_classification_templates.txt", "test"

_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_MAX_CLASS_BYTES = 32


@dataclass
class _Member:
    image: ArchiveImage | None = None
    target: int | None = None


def is_class_shards(path: Path) -> bool:
    """Whether a folder is laid out so."""
    return (path / CLASSNAMES).is_file()


def shards_of(path: Path) -> list[Path]:
    """The split's shards in the order of their numbers.

    Raises:
        EvaluationError: there are none.
    """
    folder = path / SPLIT
    shards = sorted(folder.glob("[!.]*.tar"), key=lambda shard: _natural(shard.name))
    if not shards:
        raise EvaluationError(f"{folder}: holds no .tar shards; give the folder that holds {SPLIT}/0.tar.")
    return shards


def read_shard(shard: Path) -> list[tuple[str, ImageRegion, int]]:
    """The key, image and class of each sample, in the shard's order.

    Raises:
        EvaluationError: it is compressed, cut short or damaged, or a sample lacks its image or its class.
    """
    found: dict[str, _Member] = {}
    try:
        # "r:" reads plain tar files alone: into a compressed one nothing can seek.
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                key, extension = _split(entry.name)
                if not entry.isreg() or extension not in (*_EXTENSIONS, "cls"):
                    continue
                member = found.setdefault(key, _Member())
                where = f"{shard}, {entry.name}"
                if extension == "cls":
                    if member.target is not None:
                        raise EvaluationError(f"{where}: the sample has two classes; keep one.")
                    member.target = _target(archive, entry, where)
                elif member.image is not None:
                    raise EvaluationError(f"{where}: the sample has two images; keep one.")
                else:
                    member.image = ArchiveImage(shard, None, entry.offset_data, entry.size, entry.name)
            _check_end(archive)
    except OSError as error:
        raise EvaluationError(f"{shard}: cannot be read ({error.strerror}); check the file.") from error
    except tarfile.TarError as error:
        raise EvaluationError(
            f"{shard}: is not a whole, uncompressed tar file; unpack it if it is compressed, or fetch it again."
        ) from error
    return [_sample(shard, key, member) for key, member in found.items()]


def _sample(shard: Path, key: str, member: _Member) -> tuple[str, ImageRegion, int]:
    if member.image is None or member.target is None:
        lacks = "image" if member.image is None else "class (.cls)"
        raise EvaluationError(f"{shard}, {key}: has no {lacks}; write the shard again.")
    return f"{shard.name}/{key}", member.image, member.target


def _target(archive: tarfile.TarFile, entry: tarfile.TarInfo, where: str) -> int:
    content = archive.extractfile(entry) if entry.size <= _MAX_CLASS_BYTES else None
    text = content.read() if content is not None else b""
    if not re.fullmatch(rb"\s*\d+\s*", text):
        raise EvaluationError(f"{where}: must be the number of a class.")
    return int(text)


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ReadError unless zeros end the archive: tarfile takes a damaged header for the end."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end of the archive")


def _split(name: str) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
