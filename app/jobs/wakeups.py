"""Waking workers by the broker. A wake-up carries no job: the row is the truth, and a lost one is sent again."""

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

    def publish(self, kind: JobKind) -> bool:
        """Wake a worker of a kind, after the job's row is committed.

        Returns whether the broker took it. One that is away is logged and no error: the reaper sends it again.
        """
        try:
            self._app.send_task(TASKS[kind], queue=QUEUES[kind])
        except (OperationalError, OSError) as error:
            logger.warning("no wake-up for %s, the broker does not answer: %s", kind, error)
            return False
        return True

    def close(self) -> None:
        """Close the connections."""
        self._app.close()
