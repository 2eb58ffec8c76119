"""Check a benchmark's images before anything is computed: their content, their size, and what is wrong."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from typing import Any

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.items import ImageProblem, Item, box_problem, read_bytes
from sds_clip.models.findings import LISTED, Finding, Findings
from sds_clip.models.images.decode import ImageError, decode_image, read_header
from sds_clip.models.images.ref import Box, ImageRef
from sds_clip.models.machine import usable_cores

_AHEAD = 256  # files between two calls of `say`

Say = Callable[[str, int, int], None]
"""Called with (what, done, total) to report progress."""


def quiet(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass
class Problems:
    """Items that cannot be used, and why. `max_bad_share` bounds their share."""

    total: int
    max_bad_share: float = 0.0
    found: dict[str, str] = field(default_factory=dict)
    images: Findings = field(default_factory=Findings)
    """What is wrong with their images. Each is named once, however many items use it."""

    def add(self, item_id: str, reason: str) -> None:
        """Leave an item out. Its first problem is kept."""
        self.found.setdefault(item_id, reason)

    def usable(self, items: Iterable[Item]) -> list[Item]:
        return [item for item in items if item.id not in self.found]

    def check(self) -> None:
        """Raise EvaluationError, listing the problems, if there are too many or no item is left."""
        bad = len(self.found)
        if bad == 0 or (bad < self.total and bad <= self.max_bad_share * self.total):
            return
        lines = listing(self.found, bad, LISTED)
        remedy = "Correct the data, or name the folder of the images if the files are elsewhere"
        if bad < self.total:
            # Rounded up, so that the suggested share is enough.
            remedy += f", or leave them out with --max-bad-share {ceil(1000 * bad / self.total) / 1000:g}"
        head = f"{bad} of {self.total} items cannot be used:"
        raise EvaluationError("\n".join([head, *lines, remedy + "."]))


def listing(found: Mapping[str, str], total: int, most: int) -> list[str]:
    """Return lines that name the first items that cannot be used, and why; `total` is the number of all."""
    lines = [f"  item {item_id}: {reason}" for item_id, reason in islice(found.items(), most)]
    return [*lines, f"  and {total - len(lines)} more"] if total > len(lines) else lines


@dataclass(frozen=True)
class Images:
    """Keys of the items' images, which depend on content and box and not on a file's location."""

    keys: dict[ImageRef, bytes]
    """SHA-256 over a file's content and the box in it."""
    over_the_edge: int
    """Number of boxes that reach over their image's edge. PIL's crop makes that part black."""
    longer_sides: tuple[int, ...]
    """The longer side, in pixels, of each file that can be read."""


def look_at_images(
    items: Sequence[Item], problems: Problems, say: Say = quiet, *, decode: bool = False
) -> Images:
    """Read every file once, in threads, and decode it if asked to. Items with bad images go to `problems`."""
    files = list(dict.fromkeys(image.whole for item in items for image in item.images))
    facts: dict[ImageRef, _File | Finding] = {}
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        for start in range(0, len(files), _AHEAD):
            batch = files[start : start + _AHEAD]
            looked = list(pool.map(lambda file: _look(file, decode), batch))
            facts.update(zip(batch, looked, strict=True))
            for fact in looked:
                if isinstance(fact, Finding):
                    problems.images.add(fact.code, fact.message)
            say("files", start + len(batch), len(files))
    keys: dict[ImageRef, bytes] = {}
    over = 0
    for item in items:
        for region in item.images:
            fact = facts[region.whole]
            if isinstance(fact, Finding):
                problems.add(item.id, fact.message)
            elif region.box and (reason := box_problem(region.box, fact.width, fact.height)):
                problems.images.add("item_unusable", f"item {item.id}: {region}: {reason}.")
                problems.add(item.id, f"{region}: {reason}.")
            elif region not in keys:
                keys[region] = hashlib.sha256(fact.digest + json.dumps(region.box).encode()).digest()
                over += _is_over(region.box, fact)
    problems.check()
    sides = tuple(max(fact.width, fact.height) for fact in facts.values() if isinstance(fact, _File))
    return Images(keys, over, sides)


def data_hash(items: Iterable[Item], keys: dict[ImageRef, bytes], settings: dict[str, Any]) -> str:
    """SHA-256 of everything that the metrics depend on, except the model: items in order, images, settings."""
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for item in items:
        images = [keys[region].hex() for region in item.images]
        line = json.dumps([item.id, images, item.captions, item.tags, item.target])
        total.update(hashlib.sha256(line.encode()).digest())
    return total.hexdigest()


@dataclass(frozen=True)
class _File:
    digest: bytes
    width: int
    height: int


def _look(region: ImageRef, decode: bool) -> _File | Finding:
    try:
        data = read_bytes(region)
        if decode:
            decode_image(data, orient=False)
        file = read_header(data)
    except ImageProblem as error:
        return Finding(error.code, str(error))
    except ImageError as error:
        return Finding(error.code, f"{region}: {error}")
    return _File(hashlib.sha256(data).digest(), file.width, file.height)


def _is_over(box: Box | None, file: _File) -> bool:
    if box is None:
        return False
    left, top, width, height = box
    return left < 0 or top < 0 or left + width > file.width or top + height > file.height
