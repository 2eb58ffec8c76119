"""Data are checked before they are trained on: nothing is found broken after hours."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain

from models.cores import usable_cores
from models.data.errors import DataError
from models.data.pairs import (
    MissingImage,
    PairSet,
    Sample,
    StoredPairs,
    Subset,
    UnreadableImage,
    combined_hash,
    sample_digest,
)

LISTED = 20
"""How many findings of a kind are listed by name; all are counted."""

_AHEAD = 4


@dataclass
class Finding:
    """How many samples have a fault, and the first of them in words."""

    count: int = 0
    listed: list[str] = field(default_factory=list)

    def add(self, message: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.listed) < LISTED:
            self.listed.append(message)


@dataclass(frozen=True)
class DataReport:
    """Every sample's state; a sample with several faults counts under the first of them."""

    samples: int
    usable: int
    missing_files: Finding
    unreadable_images: Finding
    bad_captions: Finding

    @property
    def bad_share(self) -> float:
        """Share of samples that cannot be used."""
        return (self.samples - self.usable) / self.samples if self.samples else 0.0

    def __str__(self) -> str:
        lines = [f"{self.samples - self.usable} of {self.samples} samples cannot be used"]
        for kind, finding in self._findings():
            if finding.count:
                more = finding.count - len(finding.listed)
                lines += [f"{finding.count} {kind}:", *(f"  {item}" for item in finding.listed)]
                lines += [f"  and {more} more"] if more else []
        return "\n".join(lines)

    def _findings(self) -> tuple[tuple[str, Finding], ...]:
        return (
            ("missing files", self.missing_files),
            ("unreadable images", self.unreadable_images),
            ("empty or broken captions", self.bad_captions),
        )


@dataclass(frozen=True)
class CheckedPairs:
    """The samples that can be used, with their content hash, and what was found."""

    pairs: PairSet
    report: DataReport


def check_pairs(
    pairs: StoredPairs,
    *,
    max_bad_share: float = 0.0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CheckedPairs:
    """Read every caption and decode every image once; only some images per worker are held at a time.

    A sample is bad when its file is missing or unreadable, or when it has no caption, an empty one, or a text
    that is not Unicode.

    Raises:
        DataError: more than `max_bad_share` of the samples are bad, or none is left.
    """
    report = {MissingImage: Finding(), UnreadableImage: Finding(), DataError: Finding()}
    usable: list[int] = []
    digests: list[bytes] = []
    for index, found in enumerate(_each(pairs, workers or usable_cores())):
        if isinstance(found, DataError):
            report[type(found)].add(str(found))
        else:
            usable.append(index)
            digests.append(found)
        if progress is not None:
            progress(index + 1, len(pairs))
    summary = DataReport(
        samples=len(pairs),
        usable=len(usable),
        missing_files=report[MissingImage],
        unreadable_images=report[UnreadableImage],
        bad_captions=report[DataError],
    )
    if not usable or summary.bad_share > max_bad_share:
        raise DataError(
            f"{summary}\nCorrect or remove these"
            + (f", or allow more than {max_bad_share:g} with --max-bad-share." if usable else ".")
        )
    return CheckedPairs(Subset(pairs, usable, combined_hash(digests)), summary)


def _each(pairs: StoredPairs, workers: int) -> Iterator[bytes | DataError]:
    """Each sample's digest, or what is wrong with it, in order."""
    ahead: deque[Future[bytes | DataError]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for index in range(len(pairs)):
            ahead.append(pool.submit(_check, pairs, index))
            if len(ahead) > workers * _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _check(pairs: StoredPairs, index: int) -> bytes | DataError:
    sample = pairs.sample(index)
    fault = _caption_fault(sample)
    if fault is not None:
        return DataError(f"{sample.name}: {fault}.")
    try:
        data = pairs.read(index)
        pairs.decode(index, data)
    except (MissingImage, UnreadableImage) as error:
        return error
    return sample_digest(sample, data)


def _caption_fault(sample: Sample) -> str | None:
    if not sample.captions or not all(caption.strip() for caption in sample.captions):
        return "has no caption, or an empty one"
    try:
        "".join(chain(sample.captions, *sample.negatives)).encode()
    except UnicodeEncodeError:  # JSON and Python literals can write these, and tokenizers refuse them
        return "has a caption with half of a surrogate pair, which is not a character"
    return None
