"""The Celery side of a worker: a task for each slot, which claims a job and lasts as long as the job's process."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import celery.apps.worker
from celery import Celery, Task, bootsteps
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_shutting_down
from celery.worker import state

from sds_clip.app.jobs.wakeups import broker_options, task_of
from sds_clip.app.store.states import JobKind
from sds_clip.worker import transport
from sds_clip.worker.config import WorkerConfig

_BROKER_TIMEOUT_S = 5.0


RunJob = Callable[[str, Callable[[str], None]], str]
"""Called with a job's id, and with what to tell which job it runs."""


def make_app(config: WorkerConfig, runs: Mapping[JobKind, RunJob]) -> Celery:
    """A Celery application whose tasks call the function of their kind.

    The rows decide which job runs, so messages are acknowledged before the task (docs/decisions/0016).
    """
    transport.install()
    app = Celery("sds_clip", broker=config.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        # No result backend: the outcome is in the job's row.
        result_backend=None,
        task_ignore_result=True,
        # Early: redelivery after a visibility timeout would run hours of training twice.
        task_acks_late=False,
        task_default_queue=config.queue,
        # A busy worker fetches no message, so each one goes to an idle worker.
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_send_task_events=True,
        worker_redirect_stdouts=False,
        # Jobs are found without a broker too, so its absence must not end one.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_BROKER_TIMEOUT_S,
        broker_transport_options=broker_options(_BROKER_TIMEOUT_S),
    )

    for kind, run_job in runs.items():
        app.task(_task(run_job), name=task_of(kind), ignore_result=True, bind=True)
    return app


def _task(run_job: RunJob) -> Callable[..., str]:
    # Messages of versions before this one name no job.
    def task(self: Task, job_id: str = "") -> str:
        return str(run_job(job_id, partial(_name, self.request.id)))

    return task


def _name(task_id: str, job_id: str) -> None:
    """Let Celery's tools, such as Flower, show the job that a task runs in place of the one that it was sent for."""
    for request in [each for each in state.active_requests if each.id == task_id and each.args != [job_id]]:
        request.args[:] = [job_id]
        request.send_event("task-started", args=repr([job_id]))


def run(app: Celery, name: str, queues: Sequence[str], on_shutdown: Callable[[], None]) -> None:
    """Run tasks until SIGTERM, SIGINT or `celery control shutdown`: one of each queue at a time (`transport`).

    Call it in the main thread.

    `on_shutdown` is called first and should stop the current job; Celery then waits for the task. It may be
    called twice.
    """

    class StopJob(bootsteps.StartStopStep):  # type: ignore[misc]
        """Every kind of shutdown comes here before the pool waits for its task."""

        requires = ("celery.worker.components:Pool",)

        def stop(self, worker: object) -> None:
            on_shutdown()

    def shutting_down(**_: object) -> None:
        """Runs directly at a signal: the step above may have to wait for a broker that does not answer."""
        on_shutdown()

    def leave_logging(**_: object) -> None:
        """Does nothing: once this signal has a receiver, Celery leaves the logging configuration alone."""

    # Celery warns root because of messages that run code; only JSON is accepted here.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    # Celery prints a shutdown as text to stdout, between the JSON lines. The log has the same information.
    celery.apps.worker.safe_say = lambda *_: None
    app.steps["worker"].add(StopJob)
    worker_shutting_down.connect(shutting_down, weak=False)
    setup_logging.connect(leave_logging, weak=False)
    try:
        worker = app.Worker(
            hostname=name,
            pool_cls="threads",
            concurrency=len(queues),
            queues=[str(queue) for queue in queues],
            without_gossip=True,
            without_mingle=True,
            quiet=True,
        )
        worker.start()
    finally:
        worker_shutting_down.disconnect(shutting_down)
        setup_logging.disconnect(leave_logging)
