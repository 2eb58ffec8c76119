"""uvicorn with a graceful shutdown: after SIGTERM it refuses new requests and finishes the accepted ones."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from sds_clip.app.edge.protocol import BoundedHeadersProtocol
from sds_clip.app.errors import ConfigurationError
from sds_clip.app.serving.engine import Engine
from sds_clip.app.settings import Settings

logger = logging.getLogger(__name__)

LINGER_S = 0.5
GRACE_AFTER_DRAIN_S = 5
_CONFIG: dict[str, Any] = {
    "http": BoundedHeadersProtocol,
    "ws": "none",
    "access_log": False,
    "log_config": None,
    "server_header": False,
}


def listen(host: str, port: int) -> socket.socket:
    """Raises: ConfigurationError if the address cannot be used."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigurationError(
            f"The metrics cannot be offered at {host} port {port} ({error.strerror}). Set SDS_CLIP_METRICS_ADDRESS to "
            "a free port of this machine."
        ) from None


class SideServer(uvicorn.Server):
    """Serves `app` at an open socket, beside another server, which alone hears signals."""

    def __init__(self, app: FastAPI, at: socket.socket) -> None:
        super().__init__(uvicorn.Config(app, lifespan="off", **_CONFIG))
        self._socket = at

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve([self._socket])


class DrainingServer(uvicorn.Server):
    """Serves `app` until SIGTERM or SIGINT. A second signal ends it at once.

    `side` is served in the same event loop.
    """

    def __init__(self, app: FastAPI, settings: Settings, side: SideServer | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.port,
                forwarded_allow_ips=[str(network) for network in settings.trusted_proxies],
                timeout_keep_alive=75,
                timeout_graceful_shutdown=GRACE_AFTER_DRAIN_S,
                **_CONFIG,
            )
        )
        self._engine: Engine = app.state.engine
        self._drain_timeout_s = settings.drain_timeout_s
        self._draining = False
        self._side = side
        self._serving_side: asyncio.Task[None] | None = None

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
        if self._side is not None:
            self._serving_side = asyncio.create_task(self._side.serve(), name="side server")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._side is not None and self._serving_side is not None:
            self._side.should_exit = True
            await self._serving_side
        await super().shutdown(sockets)

    async def _drain_then_exit(self, name: str) -> None:
        logger.info("The service received %s. It refuses new requests and finishes the accepted ones.", name)
        if not await self._engine.drain(self._drain_timeout_s):
            logger.warning("Some requests were not finished within %g s.", self._drain_timeout_s)
        # Answers in progress reach their clients, and clients on open connections get a 503, not a reset.
        await asyncio.sleep(LINGER_S)
        self.should_exit = True
