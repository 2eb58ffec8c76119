"""Cancels the request of a client that has disconnected, so that it is dropped before it is computed."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class CancelOnDisconnect:
    """Cancels a request's handler when its client disconnects after it has sent the whole body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # The handler runs in the task of the request: one of its own would cost each request time.
        handler = asyncio.current_task()
        assert handler is not None
        watch: asyncio.Task[None] | None = None
        is_gone = False

        async def reading() -> Message:
            nonlocal watch
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False) and watch is None:
                watch = asyncio.create_task(gone())
            return message

        async def gone() -> None:
            nonlocal is_gone
            while (await receive())["type"] != "http.disconnect":
                pass
            is_gone = True
            handler.cancel()

        try:
            await self._app(scope, reading, send)
        except asyncio.CancelledError:
            if not is_gone or handler.uncancel():
                raise
        finally:
            if watch is not None:
                watch.cancel()
