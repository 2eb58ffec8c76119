"""Wake-ups: messages that have a Celery task run a job. The row is the truth: one that is lost does no harm."""

import logging
from collections.abc import Mapping
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from app.store.states import JobKind

logger = logging.getLogger(__name__)

TASKS: Mapping[JobKind, str] = {
    JobKind.FINETUNE: "sds_clip.finetune",
    JobKind.EVALUATE: "sds_clip.evaluate",
}
QUEUES: Mapping[JobKind, str] = {JobKind.FINETUNE: "finetune", JobKind.EVALUATE: "evaluate"}

TIMEOUT_S = 2.0


def broker_options(timeout_s: float) -> dict[str, Any]:
    """How long a broker may take to answer, and how a connection that is dead without a word is noticed."""
    return {
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


class WakeUps:
    """Sends wake-ups, from any thread. Blocks for some seconds at most where the broker is away."""

    def __init__(self, broker_url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._app = Celery("sds_clip", broker=broker_url, set_as_current=False)
        self._app.conf.update(
            broker_transport_options=broker_options(timeout_s),
            broker_connection_timeout=timeout_s,
            task_serializer="json",
            task_ignore_result=True,
            task_publish_retry=False,
        )

    def publish(self, kind: JobKind, job_id: str) -> bool:
        """Have a worker of the kind run a job whose row is committed.

        Returns whether the broker took it. One that is away is logged and is no error: workers look for jobs, too.
        """
        try:
            self._app.send_task(TASKS[kind], args=[job_id], queue=QUEUES[kind])
        except (OperationalError, OSError) as error:
            logger.warning("no wake-up for job %s, the broker does not answer: %s", job_id, error)
            return False
        return True

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
