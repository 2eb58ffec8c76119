"""HTTP calls with retries, and streams."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent

from sds_clip.client import calls, connection
from sds_clip.client.calls import Call
from sds_clip.client.errors import ClientError
from sds_clip.client.upload import UploadFile
from sds_clip.client.waiting import async_sleep, each_in_thread, in_thread


class AsyncHttp:
    """The connections to one service. Methods raise ConnectionFailed, or APIError for an error response."""

    def __init__(self, url: str | None, api_key: str | None, timeout_s: float, max_attempts: int) -> None:
        if max_attempts < 1:
            raise ValueError(f"max_attempts is {max_attempts}, but it must be at least 1.")
        self._max_attempts = max_attempts
        self._client = httpx.AsyncClient(**connection.options(url, api_key, timeout_s))

    async def close(self) -> None:
        await self._client.aclose()

    async def json(self, call: Call) -> Any:
        return connection.json_of(await self.send(call))

    async def send(self, call: Call) -> httpx.Response:
        """Send a call. `connection.retry_pause_s` decides about retries."""
        timeout = connection.with_wait(self._client.timeout, call.wait_s)
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._send_once(call, timeout=timeout)
            except ClientError as error:
                pause_s = connection.retry_pause_s(error, attempt, self._max_attempts)
                if pause_s is None or not call.repeatable:
                    raise
            await async_sleep(pause_s)

    async def run(self, plan: calls.Plan) -> Any:
        """Send the calls of a plan, which takes its steps off the event loop, and return its result."""
        step = partial(next, plan)
        while isinstance(found := await in_thread(calls.advance, step), Call):
            try:
                step = partial(plan.send, await self.json(found))
            except ClientError as error:
                step = partial(plan.throw, error)
        return found.result

    async def upload(self, fields: dict[str, str], file: UploadFile) -> Any:
        """Upload a data set. Never retried."""
        form = self._client.build_request("POST", "/datasets", data=fields, files=file.as_form_file())
        # Only the headers and the body come from this form; the body is read in a thread below.
        headers = {name: form.headers[name] for name in ("Content-Type", "Content-Length")}
        assert isinstance(form.stream, httpx.SyncByteStream)
        call = Call("POST", "/datasets", headers=headers)
        return connection.json_of(await self._send_once(call, content=each_in_thread(form.stream)))

    async def download(self, call: Call, file: Path) -> Path:
        """Write a response to a file atomically. The file's folder is created if needed."""
        from sds_clip.models.atomic import atomic_file  # not for those who only ask

        async with self._stream(call) as response:
            with atomic_file(file, mode=0o600, durable=False) as part:
                async for chunk in response.aiter_bytes():
                    await in_thread(part.write, chunk)
        return file

    async def records(self, call: Call) -> AsyncIterator[dict[str, Any]]:
        """Yield what the lines of a response are as JSON."""
        async with self._stream(call) as response:
            async for line in response.aiter_lines():
                yield json.loads(line)

    async def follow(self, call: Call) -> AsyncIterator[ServerSentEvent]:
        """Yield the events of a stream until what it follows has ended, reconnecting as needed."""
        headers = {"Accept": "text/event-stream"}
        lost_at: float | None = None
        while True:
            pause_s = connection.RECONNECT_PAUSE_S
            try:
                async with self._stream(call, headers=headers, timeout=connection.STREAM_TIMEOUT) as response:
                    lost_at = None
                    if response.status_code == httpx.codes.NO_CONTENT:
                        return
                    async for event in EventSource(response).aiter_sse():
                        if event.id:
                            headers["Last-Event-ID"] = event.id
                        if not event.data:  # a heartbeat, or a hint when to reconnect
                            continue
                        yield event
                        if event.event == "done":
                            return
            except ClientError as error:
                lost_at = lost_at or time.monotonic()
                pause_s = connection.reconnect_pause_s(error, time.monotonic() - lost_at)
            await async_sleep(pause_s)

    async def _send_once(self, call: Call, **options: Any) -> httpx.Response:
        given = {"params": call.params, "json": call.json, "headers": call.headers, **options}
        try:
            return connection.checked(await self._client.request(call.method, call.path, **given))
        except httpx.TransportError as error:
            raise connection.failure(error, self._client.base_url) from error

    @asynccontextmanager
    async def _stream(self, call: Call, **options: Any) -> AsyncIterator[httpx.Response]:
        try:
            async with self._client.stream(call.method, call.path, params=call.params, **options) as response:
                if response.is_error:
                    await response.aread()
                yield connection.checked(response)
        except httpx.TransportError as error:
            raise connection.failure(error, self._client.base_url) from error
