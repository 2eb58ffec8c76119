"""A check job: its process reads a data set under limits of its own, and records what it holds or what is wrong."""

import contextlib
import resource

from sds_clip.app.jobs.wakeups import WakeUps
from sds_clip.app.store.records import DatasetStatus
from sds_clip.app.store.states import JobStatus
from sds_clip.app.store.verdicts import dataset_of
from sds_clip.models.machine import usable_cores
from sds_clip.worker.context import JobContext
from sds_clip.worker.dataset_checks import check, checker_of

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
    moved = check(context, dataset, checker)
    wake_ups = WakeUps(context.config.broker_url)
    for job in moved:
        if job.status is JobStatus.QUEUED and not wake_ups.publish(job.kind, job.id):
            break  # the others would wait as long for the broker; slots find jobs by themselves


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
