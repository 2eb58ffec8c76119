"""A check job: its process reads a data set as a run or a benchmark would, and records what it holds or what is wrong.

`source` in a data set's row is {"path": ...} if it was registered (`sds_clip.app.datasets.roots`). Anything else is an
upload, stored under its id. Its `max_bad_share` is the share of pairs, or of a benchmark's items, that may be
unusable (default 0).
"""

import contextlib
import resource
from array import array
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.datasets.check import (
    WAIT_S,
    CheckResult,
    FormatChecker,
    Record,
    check_registered,
    check_upload,
    rejected,
)
from sds_clip.app.datasets.folders import Content, DatasetFolders
from sds_clip.app.datasets.roots import SourceRoots
from sds_clip.app.datasets.samples import SAMPLES, write_samples
from sds_clip.app.datasets.unpack import Progress
from sds_clip.app.errors import FilesUnreadable, ServiceError, UploadMissing
from sds_clip.app.jobs.wakeups import WakeUps
from sds_clip.app.schemas.datasets import PAIRS
from sds_clip.app.store.records import SOURCE_PATH, Dataset, DatasetStatus, Job
from sds_clip.app.store.states import JobStatus
from sds_clip.app.store.verdicts import dataset_of
from sds_clip.models.data.check import check_pairs
from sds_clip.models.data.open import open_pairs
from sds_clip.models.errors import DataError, ModelError
from sds_clip.models.findings import Findings
from sds_clip.models.machine import usable_cores
from sds_clip.worker.context import JobContext
from sds_clip.worker.data import pairs_place, root_of
from sds_clip.worker.samples import samples_of_pairs, statistics

_MEMORY_BYTES = 4 * 2**30
# Far above the largest file of a data set, since it also holds for a database and a log that this process writes.
_MAX_FILE_BYTES = 64 * 2**30
_MEMORY_PER_THREAD_BYTES = 2 * 2**30  # decoding the largest image allowed takes 1 GiB


def check_dataset(context: JobContext) -> None:
    """Check, and end the job. Raises what `sds_clip.worker.job_process.Runner` may.

    A data set that a worker of the release before has checked keeps its verdict.
    """
    dataset = context.store.datasets.get(dataset_of(context.job))
    if dataset.status is not DatasetStatus.VALIDATING:
        context.succeed(result={"status": dataset.status})
        return
    checker = checker_of(dataset)  # before the limits, which then count nothing of what it has imported
    limit_resources()
    check(context, dataset, checker)


def checker_of(dataset: Dataset) -> FormatChecker:
    """What checks a data set's format. Benchmarks import torch, which takes seconds. Pairs do not."""
    if dataset.format == PAIRS:
        return partial(_check_pairs, dataset.max_bad_share)
    from sds_clip.worker.benchmarks import check_benchmark

    return partial(check_benchmark, dataset.format, dataset.max_bad_share)


def limit_resources() -> None:
    """Limit this process's memory and the size of the files it writes, on top of the limits in its code.

    It runs one check and ends. CPU time has no limit: a large data set may take hours, and the supervisor kills a check
    that stalls.
    """
    limits = {resource.RLIMIT_FSIZE: _MAX_FILE_BYTES}
    with contextlib.suppress(OSError):  # only Linux has /proc
        with open("/proc/self/statm", encoding="ascii") as file:
            mapped_bytes = int(file.read().split()[0]) * resource.getpagesize()
        # The limit is on address space: what is mapped already, which for torch with CUDA is many unused
        # gigabytes, comes on top.
        memory_bytes = mapped_bytes + _MEMORY_BYTES + usable_cores() * _MEMORY_PER_THREAD_BYTES
        limits[resource.RLIMIT_AS] = memory_bytes
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def check(context: JobContext, dataset: Dataset, checker: FormatChecker) -> None:
    """Check a data set, and end the job.

    Raises: DatasetBusy, FilesUnreadable, LeaseLost, StorageFull, StoreUnavailable, Stopped.
    """
    context.stage("checking")
    try:
        _look(context, dataset, checker, partial(_record, context), partial(context.stage, "checking"))
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise FilesUnreadable(f"The files cannot be read ({why}); add the data set again.") from error


def _look(
    context: JobContext, dataset: Dataset, checker: FormatChecker, record: Record, progress: Progress
) -> None:
    folders = DatasetFolders(context.config.datasets_dir)
    path = dataset.source.get(SOURCE_PATH)
    if path is None:
        try:
            limits = _limits(context, dataset)
            check_upload(folders, dataset.id, checker, record, limits=limits, progress=progress)
        except FileNotFoundError:
            record(rejected(UploadMissing("The uploaded files no longer exist; upload them again.")))
        return
    try:
        roots = SourceRoots(context.config.dataset_roots)
        content = roots.resolve(str(path))
    except ServiceError as error:
        record(rejected(error))
        return
    result = check_registered(content, roots, checker, progress=progress)
    with folders.claim(dataset.id, wait_s=WAIT_S) as claim:
        if result.ready:
            write_samples(claim.folder / SAMPLES, result.samples)
            claim.publish()
        record(result)


def _limits(context: JobContext, dataset: Dataset) -> ArchiveLimits:
    """The limits on an archive: its files count towards what its owner may store, in place of the upload itself."""
    limits = ArchiveLimits()
    if not dataset.owner:
        return limits
    others = context.store.datasets.stored_bytes(dataset.owner) - dataset.size_bytes
    left_bytes = max(0, context.config.max_stored_bytes_per_key - others)
    return replace(limits, max_total_bytes=min(limits.max_total_bytes, left_bytes))


def _check_pairs(max_bad_share: float, content: Content, *, progress: Progress | None = None) -> CheckResult:
    """Check image-caption pairs the way a fine-tuning run reads them."""
    hidden = root_of(content)
    longer_sides = array("L")  # of each image, in pixels; several threads append
    with TemporaryDirectory(prefix="sds-clip-check-") as links:
        try:
            place = pairs_place(content, Path(links))
            opened = open_pairs(place.data, images=place.images, confined=True)
            # List every problem here; whether there are too many is decided below.
            checked = check_pairs(
                opened,
                max_bad_share=1.0,
                progress=progress,
                look=lambda image: longer_sides.append(max(image.size)),
            )
        except ModelError as error:
            return rejected(_as_winoground(hidden) or error, hidden=hidden)
        report = checked.report
        findings = Findings()
        for each in report.findings.values():
            findings.extend(each)
        counts = {
            "samples": report.samples,
            "usable": report.usable,
            "captions": sum(len(checked.pairs.sample(index).captions) for index in range(len(checked.pairs))),
        }
        content_hash = checked.pairs.content_hash if report.bad_share <= max_bad_share else None
    found = CheckResult.of(findings, counts, content_hash, hidden)
    captions = (sample.captions for sample in opened.samples)
    return replace(
        found, statistics=statistics(captions, longer_sides), samples=samples_of_pairs(opened, content)
    )


def _as_winoground(folder: Path) -> DataError | None:
    """What to do with a set of Winoground that was sent as pairs. None if it is not one."""
    if not (folder / "examples.jsonl").is_file():
        return None
    return DataError(
        "The folder cannot be read as pairs. It has an examples.jsonl, as sets of the format winoground do: "
        "add it again with the format winoground."
    )


def _record(context: JobContext, result: CheckResult) -> None:
    """End the job with the verdict, and wake workers for the jobs that waited for it."""
    wake_ups = WakeUps(context.config.broker_url)
    for job in context.end(lambda: _verdict(context, result)):
        if job.status is JobStatus.QUEUED and not wake_ups.publish(job.kind, job.id):
            break  # the others would wait as long for the broker; slots find jobs by themselves


def _verdict(context: JobContext, result: CheckResult) -> tuple[Job, ...]:
    problems = [asdict(problem) for problem in result.problems]
    if result.ready:
        return context.store.datasets.accept(
            context.lease,
            content_hash=result.content_hash or "",
            counts=result.counts,
            problems=problems,
            statistics=result.statistics,
            size_bytes=result.size_bytes,
            max_stored_bytes=context.config.max_stored_bytes_per_key if context.job.owner else None,
        )
    counts = {**result.counts, "problems": result.problem_count}
    return context.store.datasets.reject(context.lease, problems=problems, counts=counts)
