"""The tasks that wake a slot. They carry no job, so one that is lost, repeated or late does no harm."""

from collections.abc import Callable

from celery import Celery
from celery.signals import setup_logging, worker_shutting_down

from app.jobs.wakeups import QUEUES, TASKS, broker_options
from worker.config import WorkerConfig

_BROKER_TIMEOUT_S = 5.0


def make_app(config: WorkerConfig, wake: Callable[[], None]) -> Celery:
    """A Celery application whose one task calls `wake`, which returns when there is nothing left to do.

    Acknowledged before it is run: a wake-up that is lost with its worker is sent again by the reaper. A worker
    at work fetches none, so that they go to those that are idle.
    """
    app = Celery("sds_clip", broker=config.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        result_backend=None,
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue=QUEUES[config.kind],
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_BROKER_TIMEOUT_S,
        broker_transport_options=broker_options(_BROKER_TIMEOUT_S),
    )
    app.task(wake, name=TASKS[config.kind], ignore_result=True)
    return app


def run(app: Celery, queue: str, on_shutdown: Callable[[], None]) -> None:
    """Take wake-ups until SIGTERM or SIGINT, which first call `on_shutdown`. For a process's main thread."""

    def shutting_down(**_: object) -> None:
        on_shutdown()

    def leave_logging(**_: object) -> None:
        """With somebody connected, Celery leaves logging as this program has set it up."""

    worker_shutting_down.connect(shutting_down, weak=False)
    setup_logging.connect(leave_logging, weak=False)
    try:
        worker = app.Worker(
            pool_cls="threads",
            concurrency=1,
            queues=[queue],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
    finally:
        worker_shutting_down.disconnect(shutting_down)
        setup_logging.disconnect(leave_logging)
