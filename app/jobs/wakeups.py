"""Wake-ups: messages that say that there is work. Each starts a Celery task, which runs the job whose turn it is.

The jobs' rows are authoritative, so a lost wake-up does no harm.
"""

import logging
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from sds_clip.app.store.states import JobKind

logger = logging.getLogger(__name__)

_TIMEOUT_S = 2.0


def task_of(queue: str) -> str:
    """The name of the task. Its queue is named as the kind of its jobs."""
    return f"sds_clip.{queue}"


def broker_options(timeout_s: float) -> dict[str, Any]:
    """Timeouts for a broker's answers, and the detection of connections that died silently."""
    return {
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


class WakeUps:
    """Sends wake-ups. Thread-safe. It blocks for a few seconds at most if the broker is unavailable."""

    def __init__(self, broker_url: str) -> None:
        self._app = Celery("sds_clip", broker=broker_url, set_as_current=False)
        self._app.conf.update(
            broker_transport_options=broker_options(_TIMEOUT_S),
            broker_connection_timeout=_TIMEOUT_S,
            task_serializer="json",
            task_ignore_result=True,
            task_publish_retry=False,  # a retry would delay the wake-ups behind it; a lost one does no harm
        )

    def publish(self, kind: JobKind, job_id: str) -> bool:
        """Tell a worker for `kind` that there is work: a job whose row is committed.

        Returns whether the broker accepted the message. An unavailable broker is logged and is not an error,
        because workers also poll for jobs.
        """
        try:
            self._app.send_task(task_of(kind), args=[job_id], queue=kind.value)
        except (OperationalError, OSError) as error:
            logger.warning(
                "The broker does not respond, so no wake-up was sent for job %s. Reason: %s", job_id, error
            )
            return False
        return True

    def close(self) -> None:
        self._app.close()
