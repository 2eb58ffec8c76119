"""The check of one data set: read it as a run or a benchmark will, and write down what it is or why it is not used.

`source` of a data set's row: {"path": ...} for one that was registered (`app.datasets.roots`), anything else for an
upload, which lies under its id. `max_bad_share` in it is the share of pairs, or of a benchmark's items, that may be
unusable (0 by default).
"""

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from app.datasets.checks import Checker, CheckResult, Content, Problems, Progress, rejected
from app.datasets.folders import DatasetFolders
from app.datasets.intake import check_registered, check_upload
from app.datasets.roots import SourceRoots
from app.datasets.winoground import check_winoground
from app.errors import InvalidRequest, ServiceError
from app.store import Store
from app.store.records import Dataset, Job
from models.data.check import DataReport, check_pairs
from models.data.open import open_pairs
from models.errors import ModelError
from models.evaluation.checked import Problems as ItemProblems
from models.evaluation.checked import data_hash, look_at_images
from models.evaluation.errors import EvaluationError
from models.evaluation.names import BENCHMARKS
from worker.config import WorkerConfig
from worker.data import pairs_place
from worker.measuring import read_data, root_of

logger = logging.getLogger(__name__)

PAIRS, WINOGROUND = "pairs", "winoground"
FORMATS = (PAIRS, *BENCHMARKS)
"""What a data set's `format` may be: pairs to train on, or the name of a benchmark that reads it."""

PATH = "path"
WAITS_S = (5.0, 30.0, 120.0)
"""Between tries where the disk is full or another process holds the files."""


def check(
    config: WorkerConfig,
    store: Store,
    claimed: Dataset,
    *,
    progress: Progress | None = None,
    concluding: Callable[[], None] = lambda: None,
) -> tuple[Job, ...]:
    """Check a claimed data set, and return the jobs that waited for it and have moved.

    `concluding` is called before its result is written, which ends the claim.

    Raises: LeaseLost, StoreUnavailable.
    """
    moved: tuple[Job, ...] = ()

    def record(result: CheckResult) -> None:
        nonlocal moved
        concluding()
        moved = _record(store, claimed, result)

    for wait_s in (*WAITS_S, None):
        try:
            _look(config, claimed, record, progress)
            return moved
        except (ServiceError, OSError) as error:
            if not isinstance(error, OSError) and (not error.retryable or _is_of_store(error)):
                raise
            logger.warning("the check of %s has to wait: %s", claimed.id, error)
            if wait_s is None:
                record(rejected(_as_refusal(error)))
                return moved
            time.sleep(wait_s)
    return moved


def checker_of(dataset: Dataset) -> Checker:
    """What checks a data set's format."""
    if dataset.format == WINOGROUND:
        return partial(check_winoground, max_bad_share=dataset.max_bad_share)
    if dataset.format == PAIRS:
        return PairsChecker(dataset.max_bad_share)
    return BenchmarkChecker(dataset.format, dataset.max_bad_share)


class PairsChecker:
    """Checks images with captions as a fine-tuning run does."""

    def __init__(self, max_bad_share: float = 0.0) -> None:
        self._max_bad_share = max_bad_share

    def __call__(self, content: Content, *, progress: Progress | None = None) -> CheckResult:
        """Read every caption and decode every image."""
        hidden = root_of(content)
        with tempfile.TemporaryDirectory(prefix="sds-clip-check-") as links:
            try:
                place = pairs_place(content, Path(links))
                opened = open_pairs(place.data, images=place.images, confined=True)
                # Every problem is to be listed; how many are too many is decided below.
                checked = check_pairs(opened, max_bad_share=1.0, progress=progress)
            except ModelError as error:
                return rejected(error, hidden=hidden)
            problems = _problems(checked.report, hidden)
            counts = {
                "samples": checked.report.samples,
                "usable": checked.report.usable,
                "captions": sum(
                    len(checked.pairs.sample(index).captions) for index in range(len(checked.pairs))
                ),
            }
            if checked.report.bad_share > self._max_bad_share:
                return problems.rejected(counts)
            content_hash = checked.pairs.content_hash
        return CheckResult(True, content_hash, counts, tuple(problems.listed), problems.count)


class BenchmarkChecker:
    """Checks that a benchmark can read the data, and that every image is one."""

    def __init__(self, benchmark: str, max_bad_share: float = 0.0) -> None:
        self._benchmark = benchmark
        self._max_bad_share = max_bad_share

    def __call__(self, content: Content, *, progress: Progress | None = None) -> CheckResult:
        """Read every item, and look at every image."""
        hidden = root_of(content)

        def say(what: str, done: int, total: int) -> None:
            if progress is not None:
                progress(done, total)

        with tempfile.TemporaryDirectory(prefix="sds-clip-check-") as work:
            try:
                benchmark = read_data(self._benchmark, content, Path(work))
            except ModelError as error:
                return rejected(error, hidden=hidden)
            found = ItemProblems(len(benchmark.items), self._max_bad_share)
            try:
                images = look_at_images(benchmark.items, found, say)
            except EvaluationError:  # there are too many
                images = None
        usable = found.usable(benchmark.items)
        problems = Problems(hidden)
        for item_id, reason in found.found.items():
            problems.add("item_unusable", f"item {item_id}: {reason}")
        counts = {"items": len(benchmark.items), "usable": len(usable)}
        if images is None:
            return problems.rejected(counts)
        counts["images"] = len({images.keys[region] for item in usable for region in item.images})
        content_hash = data_hash(usable, images.keys, benchmark.settings)
        return CheckResult(True, content_hash, counts, tuple(problems.listed), problems.count)


def _look(
    config: WorkerConfig,
    dataset: Dataset,
    record: Callable[[CheckResult], None],
    progress: Progress | None,
) -> None:
    if dataset.format not in FORMATS:
        record(rejected(InvalidRequest(f"There is no format {dataset.format!r}.", param="format")))
        return
    checker = checker_of(dataset)
    path = dataset.source.get(PATH)
    if path is None:
        try:
            check_upload(DatasetFolders(config.datasets_dir), dataset.id, checker, record, progress=progress)
        except FileNotFoundError:
            record(rejected(InvalidRequest("The upload is gone; send it again.", code="upload_missing")))
        return
    try:
        roots = SourceRoots(config.dataset_roots)
        content = roots.resolve(str(path))
    except ServiceError as error:
        record(rejected(error))
        return
    record(check_registered(content, roots, checker, progress=progress))


def _record(store: Store, claimed: Dataset, result: CheckResult) -> tuple[Job, ...]:
    problems = [asdict(problem) for problem in result.problems]
    if result.ready:
        return store.datasets.accept(
            claimed, content_hash=result.content_hash or "", counts=result.counts, problems=problems
        )
    counts = {**result.counts, "problems": result.problem_count}
    return store.datasets.reject(claimed, problems=problems, counts=counts)


def _problems(report: DataReport, hidden: Path) -> Problems:
    """A report's findings as a list; those that it counts and does not list are counted."""
    problems = Problems(hidden=hidden)
    for code, finding in (
        ("missing_file", report.missing_files),
        ("image_unreadable", report.unreadable_images),
        ("bad_caption", report.bad_captions),
    ):
        for message in finding.listed:
            problems.add(code, message)
        problems.count += finding.count - len(finding.listed)
    return problems


def _as_refusal(error: ServiceError | OSError) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    return ServiceError(
        f"The files cannot be read ({error.strerror}); send them again.", code="files_unreadable"
    )


def _is_of_store(error: ServiceError) -> bool:
    return error.code == "store_unavailable"
