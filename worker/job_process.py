"""A job's process: `python -m sds_clip.worker.job_process --ticks FD`, started by a supervisor that holds its stdin.

The first line of its input is the assignment; until then it is warm and waits. When its input ends, its
supervisor is gone, and it exits.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from sds_clip.app import logs, tracing
from sds_clip.app.errors import DatasetBusy, LeaseLost, StoreUnavailable, UnknownRecord
from sds_clip.app.store import Store
from sds_clip.app.store.claims import back_off_s
from sds_clip.app.store.states import HELD, JobKind, JobStatus
from sds_clip.models.deadline import ended_in_time
from sds_clip.worker.context import JobContext, StopFlag, limit
from sds_clip.worker.errors import Stopped, failure_of
from sds_clip.worker.folders import JobFolder
from sds_clip.worker.lease_keeper import LeaseKeeper
from sds_clip.worker.periodic import Periodic
from sds_clip.worker.protocol import Assignment, Exit, Ticks, read_assignment
from sds_clip.worker.reporter import Reporter

logger = logging.getLogger("sds_clip.worker.job_process")  # run as __main__

Runner = Callable[[JobContext], None]
"""Does a job and ends it by `JobContext.succeed`. Raises Stopped, JobFailed, ModelError, or any other."""

_TELL_MEMORY_EVERY_S = 5.0
_SHUT_DOWN = "its worker is shutting down"
_ASKED = {JobStatus.PAUSING: "it was asked to pause", JobStatus.CANCELLING: "it was cancelled"}
"""Why a job stops, by its row's status. The worker's signal may come first, but says less."""


def main() -> None:
    """Serve one job. Never returns."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--ticks", type=int, help="file descriptor of the pipe on which steps are reported")
    parser.add_argument(
        "--kind", type=JobKind, help="import what jobs of this kind need before a job is assigned"
    )
    args = parser.parse_args()
    logs.configure()
    # In a thread, so that the lease of a job assigned meanwhile is renewed from the start.
    importing = threading.Thread(target=import_runner, args=(args.kind or JobKind.FINETUNE,), daemon=True)
    if args.kind is not None:
        importing.start()

    def runner_of(kind: JobKind) -> Runner:
        if args.kind is not None:
            importing.join()
        return import_runner(kind)

    serve(Ticks(args.ticks), runner_of)


def import_runner(kind: JobKind) -> Runner:
    """Return the function that runs jobs of this kind; the imports take seconds."""
    if kind is JobKind.FINETUNE:
        from sds_clip.worker.finetune_job import finetune

        return finetune
    if kind is JobKind.EVALUATE:
        from sds_clip.worker.evaluate_job import evaluate

        return evaluate
    from sds_clip.worker.check_job import check_dataset

    return check_dataset


def serve(ticks: Ticks, runner_of: Callable[[JobKind], Runner]) -> None:
    """Wait for the assignment, run it, and exit at once, even if other threads are still running."""
    line = read_assignment()
    stopping = StopFlag()
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.set(_SHUT_DOWN))
    assignment = Assignment.loads(line)
    logs.configure(assignment.config.log_level, assignment.config.log_format)
    try:
        tracing.configure("sds-clip-job")
        with tracing.span("process", assignment.trace, job=assignment.lease.job_id):
            code = _work(assignment, ticks, stopping, runner_of)
    except BaseException:
        logger.exception("The job's process failed.")
        code = None
    tracing.flush()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(1 if code is None else code)


def _work(
    assignment: Assignment, ticks: Ticks, stopping: StopFlag, runner_of: Callable[[JobKind], Runner]
) -> Exit:
    config, lease, began = assignment.config, assignment.lease, time.monotonic()
    # Shorter than the lease, so that a database that does not answer cannot use up all of it in one call.
    store = Store(config.database_url, timeout_s=min(config.store_timeout_s, config.lease_ttl_s / 4))
    keeper = LeaseKeeper(store, lease, config.lease_ttl_s, stopping.set)
    keeper.start()
    ticks.begin()  # until now the supervisor has renewed the lease
    try:
        job = store.jobs.get(lease.job_id)
    except (StoreUnavailable, UnknownRecord):
        return Exit.STORE_AWAY
    if job.fence != lease.fence or job.status not in HELD:
        return Exit.LEASE_LOST
    reporter = Reporter(store, lease, config.report_every_s)
    reporter.start()
    folder = JobFolder(config.jobs_dir, lease)
    context = JobContext(
        config,
        store,
        job,
        folder,
        reporter,
        ticks,
        stopping,
        lease_left_s=lambda: keeper.left_s,
        stop_renewing=keeper.close,
    )
    try:
        with ended_in_time([signal.SIGTERM], lambda number: _end(context)):
            return _guarded(lambda: _attempt(context, runner_of))
    finally:
        keeper.close()
        context.stages.enter(None)
        spent = {"told_s": reporter.spent_s, "renewed_s": keeper.spent_s, "ran_s": time.monotonic() - began}
        logger.info(
            "Job %s spent %.1f s on progress reports and lease renewals.",
            job.id,
            reporter.spent_s + keeper.spent_s,
            extra={"fields": spent},
        )


def _guarded(work: Callable[[], Exit]) -> Exit:
    try:
        return work()
    except StoreUnavailable:
        return Exit.STORE_AWAY
    except (LeaseLost, UnknownRecord) as error:  # an ended job's record may have been removed by now
        logger.warning("%s", error)
        return Exit.LEASE_LOST


def _end(context: JobContext) -> None:
    """End the process, whose main thread does not stop in time: save the last whole step, and release the job."""
    context.stopping.set(_SHUT_DOWN)
    code = Exit.STORE_AWAY
    try:
        context.save()
    except Exception:
        logger.exception("The state after the last step of job %s could not be saved.", context.job.id)
    try:
        code = _guarded(lambda: _release(context, _SHUT_DOWN))
    finally:
        os._exit(code)


def _release(context: JobContext, reason: str) -> Exit:
    context.reporter.close()
    asked = _ASKED.get(context.store.jobs.get(context.job.id).status, reason)
    left = context.store.leases.release(context.lease, f"Stopped: {asked.rstrip('.')}.")
    logger.info("Job %s was released. Its status is now %s.", context.job.id, left.status)
    return Exit.RELEASED


def _attempt(context: JobContext, runner_of: Callable[[JobKind], Runner]) -> Exit:
    """Run the job, and record in its row how it ended."""
    job, config = context.job, context.config
    try:
        try:
            context.folder.open()
            limit(config, config.main_device)
            runner = runner_of(job.kind)
            memory = Periodic(
                "device memory", lambda: context.ticks.memory(_device_bytes()), _TELL_MEMORY_EVERY_S
            )
            memory.start()
            runner(context)
        except Exception:
            context.check_data_folder()  # without it, neither an error nor a request to stop says anything of the job
            raise
        logger.info("Job %s ended.", job.id)
        return Exit.ENDED
    except Stopped as stopped:
        return _release(context, str(stopped))
    except (LeaseLost, StoreUnavailable):
        raise
    except Exception as error:
        failure = failure_of(error, hidden=config.data_dir)
        logger.exception("Attempt %d of job %s failed with %s.", job.attempt, job.id, failure.error.code)
        context.reporter.close()
        # A check that failed would reject its data, and nothing is wrong with those that another process holds.
        is_held = failure.error.code == DatasetBusy.code and job.attempt >= job.max_attempts
        if failure.pauses or is_held:
            context.store.leases.suspend(context.lease, failure.error)
            return Exit.RELEASED
        retry_in_s = back_off_s(config.retry_base_s, job.attempt) if failure.again else None
        context.store.leases.fail(context.lease, failure.error, retry_in_s=retry_in_s)
        return Exit.ENDED


def _device_bytes() -> int:
    """The memory reserved on GPUs. The runner has imported torch, unless its jobs need none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))


if __name__ == "__main__":
    main()
