"""The items of evaluations, and the comparison of two, from the files that the jobs have left."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from cachetools import LRUCache

from app.errors import InvalidRequest, NoItem, NoItems, NotComparable
from app.keys import Caller
from app.places import Places
from app.schemas.items import Flip
from app.schemas.jobs import FILES
from app.schemas.specs import JobSpec
from app.store import SeenBy
from app.store.records import Job
from app.store.states import JobKind
from app.store_threads import StoreThreads
from app.threads import to_the_end
from models.errors import EvaluationError
from models.evaluation.comparison import Comparison, compare
from models.evaluation.paired import paired_items
from models.evaluation.results import ItemOutcome, Results, item_id, read_results

MAX_FILE_BYTES = 64 * 2**20
"""The limit on a file of results. Parsed, it takes several times as much."""
_KEPT_BYTES = 2 * MAX_FILE_BYTES
_KEPT_COMPARISONS = 16
_WAITING = 64

_NAME_ANOTHER = "Name another evaluation in `with`: this job has measured no baseline."

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
    """Some items of an evaluation of a data set."""

    benchmark: str
    dataset_id: str
    items: list[Item]
    has_more: bool


class EvaluationService:
    """Reads the results of evaluation jobs, one at a time, and keeps the last ones.

    Every method raises StoreUnavailable, StoreBusy, Overloaded, NoItems, and UnknownRecord for a job that the caller
    does not see.
    """

    def __init__(self, seen_by: SeenBy, threads: StoreThreads, data_dir: Path) -> None:
        self._seen_by = seen_by
        self._threads = threads
        self._data_dir = data_dir
        self._turn = asyncio.Semaphore(1)  # which also guards what is kept
        self._places = Places(_WAITING, "evaluations", retry_after_s=2)
        self._results: LRUCache[Path, tuple[Results, int]] = LRUCache(_KEPT_BYTES, lambda kept: kept[1])
        self._comparisons: LRUCache[tuple[str, str], Comparison] = LRUCache(_KEPT_COMPARISONS)

    async def items(
        self,
        caller: Caller,
        job_id: str,
        other_id: str | None,
        *,
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
        job, other = await self._jobs(caller, job_id, other_id)

        def find() -> ItemPage:
            results, before = self._read(job), self._before(job, other)
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
            return ItemPage(results.benchmark, _dataset_of(job), page[:limit], len(page) > limit)

        return await self._one_at_a_time(find)

    async def sample_of(self, caller: Caller, job_id: str, index: int) -> tuple[str, str]:
        """The data set of an item, and the id of its sample there. Raises NoItem."""
        job, _ = await self._jobs(caller, job_id, None)

        def find() -> tuple[str, str]:
            results = self._read(job)
            if index >= len(results.items):
                raise NoItem("The evaluation has no item with this number.", param="index")
            return _dataset_of(job), item_id(results.benchmark, results.items[index].id)

        return await self._one_at_a_time(find)

    async def compare(self, caller: Caller, job_id: str, other_id: str | None) -> Comparison:
        """An evaluation minus another one, or minus the job's own baseline. Raises NotComparable."""
        job, other = await self._jobs(caller, job_id, other_id)

        def find() -> Comparison:
            results, before = self._read(job), self._before(job, other)
            if before is None:
                raise NotComparable(_NAME_ANOTHER, param="with")
            key = job.id, job.id if other is None else other.id
            if key not in self._comparisons:
                self._comparisons[key] = _translated(lambda: compare(before, results))
            return self._comparisons[key]

        return await self._one_at_a_time(find)

    async def _jobs(self, caller: Caller, job_id: str, other_id: str | None) -> tuple[Job, Job | None]:
        def get() -> tuple[Job, Job | None]:
            jobs = self._seen_by(caller.sees).jobs
            return jobs.get(job_id), None if other_id is None else jobs.get(other_id)

        return await self._threads.run(get)

    async def _one_at_a_time(self, call: Callable[[], Answer]) -> Answer:
        with self._places.one():
            async with self._turn:
                return await to_the_end(call, "read evaluation")

    def _before(self, job: Job, other: Job | None) -> Results | None:
        """What the job is compared with: the other one, or else its own baseline."""
        if other is not None:
            return self._read(other)
        return self._read(job, "baseline") if "baseline" in _files(job) else None

    def _read(self, job: Job, name: str = "results") -> Results:
        file = self._file(job, name)
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

    def _file(self, job: Job, name: str) -> Path:
        own = (self._data_dir / "jobs" / job.id).resolve()
        path = _files(job).get(name)
        if path is None or not (file := (self._data_dir / path).resolve()).is_relative_to(own):
            raise NoItems(
                f"The job {job.id} has no items. An evaluation has them once it has succeeded, until its files are "
                "deleted."
            )
        return file


def _files(job: Job) -> Mapping[str, str]:
    """The paths of the files of an evaluation, below the data folder. It is empty unless they are there."""
    files = None if job.files_removed_at is not None else (job.result or {}).get(FILES)
    return files if job.kind is JobKind.EVALUATE and isinstance(files, Mapping) else {}


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


def _dataset_of(job: Job) -> str:
    return str(JobSpec.upgraded(job.config)["data"])
