"""Kombu's transport for Redis, but a message that cannot be read is dropped. Kombu's own ends the worker."""

import logging
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery.worker import state
from kombu.transport import TRANSPORT_ALIASES, redis

logger = logging.getLogger(__name__)


class Channel(redis.Channel):  # type: ignore[misc]
    """Raises nothing for what a message holds, but all that is about the connection."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (Empty, self.ResponseError, *self.connection_errors):
            raise
        except Exception as error:
            _dropped(error)

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], Any], consumer_tag: str, **options: Any
    ) -> Any:
        def read(message: Any) -> Any:
            try:
                return callback(message)
            except (self.ResponseError, *self.connection_errors):
                raise
            except Exception as error:
                _dropped(error)
                # Otherwise Celery waits for it, and takes no other.
                for request in [each for each in state.reserved_requests if each.message is message]:
                    state.task_ready(request)
                if not message.acknowledged:
                    message.reject()

        return super().basic_consume(queue, no_ack, read, consumer_tag, **options)


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
