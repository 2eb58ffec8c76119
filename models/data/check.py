"""Check data before training on it, so that nothing turns out to be broken after hours."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import PIL.Image

from sds_clip.models.ahead import in_order
from sds_clip.models.data.pairs import (
    MissingImage,
    PairSet,
    Sample,
    StoredPairs,
    Subset,
    UnreadableImage,
    combined_hash,
    sample_digest,
)
from sds_clip.models.errors import DataError
from sds_clip.models.findings import LISTED, Findings
from sds_clip.models.machine import usable_cores

_AHEAD = 4  # images in flight for each worker
_EXAMPLES = 3  # of each kind of problem, in the text of an error
_KINDS: dict[type[DataError], tuple[str, str]] = {
    MissingImage: ("missing_file", "Missing files"),
    UnreadableImage: ("image_unreadable", "Unreadable images"),
    DataError: ("bad_caption", "Missing, empty or broken captions"),
}
"""The code of each kind of problem, and its name."""

Found = bytes | DataError
"""The digest of a sample, or why it cannot be used."""
Exchange = Callable[[Any], list[Any]]
"""Collects a value from each process; returns all of them, in the order of ranks, to each."""


@dataclass(frozen=True)
class DataReport:
    """The state of every sample. A sample with several faults counts under the first of them."""

    samples: int
    usable: int
    findings: Mapping[str, Findings]
    """By the code of each kind of fault."""

    @property
    def bad_share(self) -> float:
        return (self.samples - self.usable) / self.samples if self.samples else 0.0

    def __str__(self) -> str:
        return "\n".join([self.head, *self.problems(LISTED)])

    @property
    def head(self) -> str:
        return f"{self.samples - self.usable} of {self.samples} samples cannot be used."

    def problems(self, most: int) -> list[str]:
        """Lines that count the problems of each kind, and name the first ones."""
        lines = []
        for code, kind in _KINDS.values():
            finding = self.findings[code]
            if finding.count:
                listed = finding.listed[:most]
                more = finding.count - len(listed)
                lines += [f"{kind}: {finding.count}", *(f"  {item.message}" for item in listed)]
                lines += [f"  and {more} more"] if more else []
        return lines


@dataclass(frozen=True)
class CheckedPairs:
    """The usable samples, with their content hash, and the report on all of them."""

    pairs: PairSet
    report: DataReport


def check_pairs(
    pairs: StoredPairs,
    *,
    max_bad_share: float = 0.0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    look: Callable[[PIL.Image.Image], None] | None = None,
    rank: int = 0,
    world_size: int = 1,
    exchange: Exchange | None = None,
) -> CheckedPairs:
    """Read every caption and decode every image once, with only a few images per worker in memory.

    A sample is bad if its file is missing or unreadable, or if it has no caption, an empty one, or a text
    that is not Unicode. Several processes read a part each, and all get the same result. `look` is called with
    each image, from several threads.

    Raises:
        DataError: more than `max_bad_share` of the samples are bad, none is left, or processes see other data.
    """
    findings = {code: Findings() for code, _ in _KINDS.values()}
    usable: list[int] = []
    digests: list[bytes] = []
    own = range(rank, len(pairs), world_size)
    mine: list[Found] = []
    workers = workers or usable_cores()
    with ThreadPoolExecutor(workers) as pool:
        for each in in_order(pool, partial(_check, pairs, look=look), own, workers * _AHEAD):
            mine.append(each)
            if progress is not None:
                progress(len(mine), len(own))
    parts = [mine] if exchange is None else _exchanged(mine, pairs, exchange)
    for index in range(len(pairs)):
        found = parts[index % world_size][index // world_size]
        if isinstance(found, DataError):
            code, _ = _KINDS[type(found)]
            findings[code].add(code, str(found))
        else:
            usable.append(index)
            digests.append(found)
    summary = DataReport(len(pairs), len(usable), findings)
    if not usable or summary.bad_share > max_bad_share:
        remedy = (
            "Correct or remove these samples, or name the folder of the images if the files are elsewhere"
        )
        if usable:
            remedy += f", or allow a larger share than {max_bad_share:g} with --max-bad-share"
        raise DataError("\n".join([f"{summary.head} {remedy}.", *summary.problems(_EXAMPLES)]))
    return CheckedPairs(Subset(pairs, usable, combined_hash(digests)), summary)


def _exchanged(found: list[Found], pairs: StoredPairs, exchange: Exchange) -> list[list[Found]]:
    """Return what each process found. Raises DataError unless all of them have the same samples."""
    texts = combined_hash(sample_digest(pairs.sample(index), b"") for index in range(len(pairs)))
    told = exchange((texts, found))
    if any(other != texts for other, _ in told):
        raise DataError("The processes read different data; give all of them the same files.")
    return [part for _, part in told]


def _check(pairs: StoredPairs, index: int, look: Callable[[PIL.Image.Image], None] | None) -> Found:
    sample = pairs.sample(index)
    fault = _caption_fault(sample)
    if fault is not None:
        return DataError(f"{sample.place} {fault}.")
    try:
        data = pairs.read(index)
        image = pairs.decode(index, data)
    except (MissingImage, UnreadableImage) as error:
        return error
    if look is not None:
        look(image)
    return sample_digest(sample, data)


def _caption_fault(sample: Sample) -> str | None:
    if not sample.captions:
        return "has no caption"
    if not all(caption.strip() for caption in sample.captions):
        return "has an empty caption"
    try:
        "".join(chain(sample.captions, *sample.negatives)).encode()
    except UnicodeEncodeError:  # JSON and Python literals can contain these; tokenizers refuse them
        return "has a caption with a lone surrogate, which is not a valid character"
    return None
