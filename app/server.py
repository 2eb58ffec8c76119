"""uvicorn with a graceful shutdown: after SIGTERM it refuses new requests and finishes the accepted ones."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.protocol import BoundedHeadersProtocol
from app.serving.engine import Engine
from app.settings import Settings

logger = logging.getLogger(__name__)

LINGER_S = 0.5
GRACE_AFTER_DRAIN_S = 5


class SideServer(uvicorn.Server):
    """A server beside another one, which alone hears signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class DrainingServer(uvicorn.Server):
    """Serves `app` until SIGTERM or SIGINT. A second signal ends it at once.

    If the settings have an address for metrics, it serves `metrics` there, in the same event loop.
    """

    def __init__(self, app: FastAPI, settings: Settings, metrics: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                http=BoundedHeadersProtocol,
                ws="none",
                access_log=False,
                log_config=None,
                server_header=False,
                forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GRACE_AFTER_DRAIN_S,
            )
        )
        self._engine: Engine = app.state.engine
        self._drain_timeout_s = settings.drain_timeout_s
        self._draining = False
        self._metrics = None
        if settings.metrics_address is not None:
            host, _, port = settings.metrics_address.partition(":")
            self._metrics = SideServer(
                uvicorn.Config(
                    metrics,
                    host=host,
                    port=int(port),
                    http=BoundedHeadersProtocol,
                    ws="none",
                    lifespan="off",
                    access_log=False,
                    log_config=None,
                    server_header=False,
                )
            )
        self._serving_metrics: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first signal, drain. On the second, stop at once."""
        if self._draining or not self.started:
            self.force_exit = self.started
            super().handle_exit(sig, frame)
            return
        self._draining = True
        name = signal.Signals(sig).name
        self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._drain_then_exit(name)))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Keep a reference to the event loop, which a signal handler cannot look up."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self._metrics is not None:
            self._serving_metrics = asyncio.create_task(self._metrics.serve(), name="metrics")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._metrics is not None and self._serving_metrics is not None:
            self._metrics.should_exit = True
            await self._serving_metrics
        await super().shutdown(sockets)

    async def _drain_then_exit(self, name: str) -> None:
        logger.info("The service received %s. It refuses new requests and finishes the accepted ones.", name)
        if not await self._engine.drain(self._drain_timeout_s):
            logger.warning("Some requests were not finished within %g s.", self._drain_timeout_s)
        # Answers in progress reach their clients, and clients on open connections get a 503, not a reset.
        await asyncio.sleep(LINGER_S)
        self.should_exit = True
