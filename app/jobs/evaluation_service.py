"""The items of what jobs have measured, and the comparison of two, from the files that the jobs have left."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from cachetools import LRUCache

from sds_clip.app.budgets import Budget
from sds_clip.app.errors import InvalidRequest, NoItems, NotComparable
from sds_clip.app.inside import job_file
from sds_clip.app.keys import Caller
from sds_clip.app.registry.measured import Measured, measured_by
from sds_clip.app.schemas.items import Flip
from sds_clip.app.store import SeenBy
from sds_clip.app.store.records import Job
from sds_clip.app.store_threads import StoreThreads
from sds_clip.app.threads import to_the_end
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.comparison import Comparison, compare
from sds_clip.models.evaluation.paired import paired_items
from sds_clip.models.evaluation.results import ItemOutcome, Results, item_id, read_results

MAX_FILE_BYTES = 64 * 2**20
"""The limit on a file of results. Parsed, it takes several times as much."""
_KEPT_BYTES = 2 * MAX_FILE_BYTES
_KEPT_COMPARISONS = 16
_WAITING = 64

_NAME_ANOTHER = "Name another job that measured the same items in `with`: this job has measured no baseline."

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Item:
    """An item's outcome, and that in the other evaluation, if there is one."""

    index: int
    outcome: ItemOutcome
    other: ItemOutcome | None
    sample_id: str
    """The id of the sample that it belongs to."""


@dataclass(frozen=True)
class ItemPage:
    """Some items of what a job has measured on a data set."""

    benchmark: str
    dataset_id: str
    items: list[Item]
    has_more: bool


class EvaluationService:
    """Reads the results of jobs, one file at a time, and keeps the last ones.

    `on` names one of the benchmarks on which a fine-tuning job has measured its version. By default, it is the first
    that the other job has measured too.

    Every method raises StoreUnavailable, StoreBusy, Overloaded, NoItems, FilesOutside, InvalidRequest for `on`, and
    UnknownRecord for a job that the caller does not see.
    """

    def __init__(self, seen_by: SeenBy, threads: StoreThreads, data_dir: Path) -> None:
        self._seen_by = seen_by
        self._threads = threads
        self._data_dir = data_dir
        self._turn = asyncio.Semaphore(1)  # which also guards what is kept
        self._waiting = Budget(_WAITING, "evaluations", retry_after_s=lambda: 2)
        self._results: LRUCache[Path, tuple[Results, int]] = LRUCache(_KEPT_BYTES, lambda kept: kept[1])
        self._comparisons: LRUCache[tuple[Path, Path], Comparison] = LRUCache(_KEPT_COMPARISONS)

    async def items(
        self,
        caller: Caller,
        job_id: str,
        other_id: str | None,
        *,
        on: str | None,
        tag: str | None,
        flip: Flip | None,
        outcome: str | None,
        right: bool | None,
        after: int,
        limit: int,
    ) -> ItemPage:
        """At most `limit` items whose indices are above `after`, in the order of the data.

        The other evaluation is by default that of the job's own baseline, if it has one.

        Raises: NotComparable, InvalidRequest.
        """
        measured, other = await self._measured(caller, job_id, other_id, on)

        def find() -> ItemPage:
            results, before = self._read(measured), None if other is None else self._read(other)
            name = outcome or results.outcome
            _check_filters(results, before, flip, name)
            pairs = _pairs(results, before)
            found = (
                Item(index, here, there, item_id(results.benchmark, here.id))
                for index, (there, here) in islice(enumerate(pairs), after + 1, None)
                if (tag is None or tag in here.tags)
                and (right is None or here.correct.get(name) is right)
                and _flipped(flip, there, here, name)
            )
            page = list(islice(found, limit + 1))
            return ItemPage(results.benchmark, measured.data, page[:limit], len(page) > limit)

        return await self._one_at_a_time(find)

    async def compare(self, caller: Caller, job_id: str, other_id: str | None, on: str | None) -> Comparison:
        """What a job has measured minus another one, or minus its own baseline. Raises NotComparable."""
        measured, other = await self._measured(caller, job_id, other_id, on)

        def find() -> Comparison:
            results, before = self._read(measured), None if other is None else self._read(other)
            if other is None or before is None:
                raise NotComparable(_NAME_ANOTHER, param="with")
            key = self._file(measured), self._file(other)
            if key not in self._comparisons:
                self._comparisons[key] = _translated(lambda: compare(before, results))
            return self._comparisons[key]

        return await self._one_at_a_time(find)

    async def _measured(
        self, caller: Caller, job_id: str, other_id: str | None, on: str | None
    ) -> tuple[Measured, Measured | None]:
        """What is asked for of the job, and what it is compared with: that of the other job, or else its baseline."""

        def get() -> tuple[Job, Job | None]:
            jobs = self._seen_by(caller.sees).jobs
            return jobs.get(job_id), None if other_id is None else jobs.get(other_id)

        return _chosen(*await self._threads.run(get), on)

    async def _one_at_a_time(self, call: Callable[[], Answer]) -> Answer:
        with self._waiting.hold():
            async with self._turn:
                return await to_the_end(call, "read evaluation")

    def _read(self, measured: Measured) -> Results:
        file = self._file(measured)
        if (kept := self._results.get(file)) is not None and file.is_file():
            return kept[0]
        try:
            size_bytes = file.stat().st_size
            if size_bytes > MAX_FILE_BYTES:
                raise NoItems(
                    f"The results have {size_bytes} bytes. Only those of at most {MAX_FILE_BYTES} are listed; the "
                    "job's report shows the most interesting items."
                )
            results = read_results(file)
        except (OSError, EvaluationError):
            raise NoItems("The job's file of results is missing or damaged; evaluate again.") from None
        self._results[file] = results, size_bytes
        return results

    def _file(self, measured: Measured) -> Path:
        if measured.file is None:
            raise _no_items(measured.job)
        return job_file(self._data_dir / "jobs", measured.job.id, self._data_dir / measured.file)


def _no_items(job: Job) -> NoItems:
    return NoItems(
        f"The job {job.id} has no items. An evaluation, and a fine-tuning job with benchmarks in `evaluate`, has them "
        "once it has succeeded, until its files are deleted."
    )


def _chosen(job: Job, other: Job | None, on: str | None) -> tuple[Measured, Measured | None]:
    """Raises: NoItems, InvalidRequest."""
    pairs = list(measured_by(job))
    others = [] if other is None else [measured for measured, _ in measured_by(other)]
    for each, found in ((job, pairs), (other, others)):
        if each is not None and not found:
            raise _no_items(each)
    if on is not None:
        names = ", ".join(measured.name for measured, _ in pairs)
        pairs = [(measured, before) for measured, before in pairs if measured.name == on]
        if not pairs:
            raise InvalidRequest(f"The job has measured nothing on {on!r}; it has {names}.", param="on")
    if other is None:
        return pairs[0]
    alike = [
        (each, before)
        for each, _ in pairs
        for before in others
        if (each.benchmark, each.data_hash) == (before.benchmark, before.data_hash)
    ]
    return alike[0] if alike else (pairs[0][0], others[0])


def _check_filters(results: Results, before: Results | None, flip: Flip | None, name: str) -> None:
    """Raises: InvalidRequest."""
    known = list(dict.fromkeys(name for item in results.items for name in item.correct))
    if name not in known:
        raise InvalidRequest(
            f"The evaluation has no outcome {name!r}; it has {', '.join(known)}.", param="outcome"
        )
    if flip is not None and before is None:
        raise InvalidRequest(_NAME_ANOTHER, param="flip")


def _pairs(results: Results, other: Results | None) -> Sequence[tuple[ItemOutcome | None, ItemOutcome]]:
    if other is None:
        return [(None, item) for item in results.items]
    return _translated(lambda: paired_items(other, results))


def _flipped(flip: Flip | None, before: ItemOutcome | None, after: ItemOutcome, name: str) -> bool:
    if flip is None:
        return True
    if before is None or name not in after.correct:
        return False
    was, is_now = before.correct[name], after.correct[name]
    return {
        Flip.RIGHT_TO_WRONG: was and not is_now,
        Flip.WRONG_TO_RIGHT: is_now and not was,
        Flip.CHANGED: was != is_now,
        Flip.SAME: was == is_now,
    }[flip]


def _translated(call: Callable[[], Answer]) -> Answer:
    try:
        return call()
    except EvaluationError as error:
        raise NotComparable(f"The evaluations cannot be compared. {error}", param="with") from None
