"""CLIP_benchmark's WebDataset layout of a labelled set.

The files:

    classnames.txt                          one class per line
    zeroshot_classification_templates.txt   one template per line, with {c}
    test/0.tar, test/1.tar, ...             KEY.jpg (png, webp) with KEY.cls, the number of its class
"""

import re
from dataclasses import dataclass
from pathlib import Path

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.items import Item
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tar_index import IMAGE_EXTENSIONS, Member, read_members

CLASSNAMES, TEMPLATES, SPLIT = "classnames.txt", "zeroshot_classification_templates.txt", "test"

_MAX_CLASS_BYTES = 32  # a .cls member holds one number


@dataclass
class _Sample:
    image: ImageRef | None = None
    target: int | None = None


def shards_of(path: Path) -> list[Path]:
    """Return the split's shards in the order of their numbers.

    Raises:
        EvaluationError: there are none.
    """
    folder = path / SPLIT
    shards = sorted(folder.glob("[!.]*.tar"), key=lambda shard: _natural(shard.name))
    if not shards:
        raise EvaluationError(
            f"{folder} contains no .tar shards; give the folder that contains {SPLIT}/0.tar."
        )
    return shards


def read_shard(shard: Path) -> list[Item]:
    """Return each sample with the number of its class, in the shard's order.

    Raises:
        EvaluationError: it is compressed, cut short or damaged, or a sample lacks its image or its class.
    """
    found: dict[str, _Sample] = {}
    for member in read_members(shard, EvaluationError):
        if member.extension not in (*IMAGE_EXTENSIONS, "cls"):
            continue
        sample = found.setdefault(member.key, _Sample())
        where = f"{shard}, {member.name}"
        if member.extension == "cls":
            if sample.target is not None:
                raise EvaluationError(f"{where}: the sample has two classes; keep one.")
            sample.target = _target(member, where)
        elif sample.image is not None:
            raise EvaluationError(f"{where}: the sample has two images; keep one.")
        else:
            sample.image = ImageRef(
                shard, offset=member.offset, size=member.size, name=f"{shard}/{member.name}"
            )
    return [_whole(shard, key, sample) for key, sample in found.items()]


def _whole(shard: Path, key: str, sample: _Sample) -> Item:
    if sample.image is None or sample.target is None:
        lacks = "image" if sample.image is None else "class (.cls)"
        raise EvaluationError(f"{shard}, {key}: the sample has no {lacks}; write the shard again.")
    return Item(f"{shard.name}/{key}", (sample.image,), target=sample.target)


def _target(member: Member, where: str) -> int:
    text = member.read() if member.size <= _MAX_CLASS_BYTES else b""
    if not re.fullmatch(rb"\s*\d+\s*", text):
        raise EvaluationError(f"{where} must be the number of a class.")
    return int(text)


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
