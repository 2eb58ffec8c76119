"""Kombu's transport for Redis, but a message that cannot be read is dropped, where Kombu's own ends the worker.

And of each queue it takes one message at a time, so that a training job does not hold up checks.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty
from typing import Any

from celery.worker import state
from kombu.transport import TRANSPORT_ALIASES, redis
from kombu.utils.scheduling import round_robin_cycle

from sds_clip.app.jobs.wakeups import task_of

logger = logging.getLogger(__name__)


class FreeQueues(round_robin_cycle):  # type: ignore[misc]
    """The queues whose slot has no task. The next message of another one is for a worker that is idle."""

    def consume(self, n: int) -> list[str]:
        busy = {request.name for request in list(state.requests.values())}
        return [queue for queue in super().consume(n) if task_of(queue) not in busy]


class Channel(redis.Channel):  # type: ignore[misc]
    """Raises nothing for what a message holds, but all that is about the connection."""

    queue_order_strategy = f"{__name__}:FreeQueues"

    def _brpop_read(self, **options: Any) -> Any:
        with self._dropping():
            return super()._brpop_read(**options)

    def _receive_one(self, client: Any) -> Any:  # commands to workers
        with self._dropping():
            return super()._receive_one(client)

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **options: Any
    ) -> Any:
        def read(message: Any) -> Any:
            try:
                return callback(message)
            except self._of_the_connection:
                raise
            except Exception as error:
                _dropped(error)
                # Otherwise Celery waits for it, and takes no other.
                for request in [each for each in state.reserved_requests if each.message is message]:
                    state.task_ready(request)
                if not message.acknowledged:
                    message.reject()

        return super().basic_consume(queue, no_ack, read, consumer_tag, **options)

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except self._of_the_connection:
            raise
        except Exception as error:
            _dropped(error)

    @property
    def _of_the_connection(self) -> tuple[type[Exception], ...]:
        # Kombu counts KeyError among them, which also tells that a message lacks a field.
        return Empty, self.ResponseError, *(each for each in self.connection_errors if each is not KeyError)


class Transport(redis.Transport):  # type: ignore[misc]
    """Kombu's, with the channel above."""

    Channel = Channel


def install() -> None:
    """Let the connections of this process use the transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"


def _dropped(error: Exception) -> None:
    logger.error(
        "A message of the broker cannot be read and was dropped (%s). Its job, if there is one, is found without it.",
        type(error).__name__,
    )
