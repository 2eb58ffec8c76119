"""Calls sent over HTTP, awaited: again where that is safe, and streams over any number of connections."""

import asyncio
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx

from sds_clip.client import answers, calls, connection, retries
from sds_clip.client.calls import Call
from sds_clip.client.errors import APIError, ClientError
from sds_clip.client.events import Follower, Frame
from sds_clip.client.inference import Exchange, advance
from sds_clip.client.upload import Form


class AsyncHttp:
    """One service. Every method raises ConnectionFailed, and APIError for an answer that is an error."""

    def __init__(
        self, url: str | None, api_key: str | None, timeout_s: float, max_attempts: int = retries.MAX_ATTEMPTS
    ) -> None:
        self._max_attempts = retries.at_least_one(max_attempts)
        self._client = httpx.AsyncClient(**connection.options(url, api_key, timeout_s))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def json(self, call: Call) -> dict[str, Any]:
        """The answer's JSON."""
        return answers.json_of(await self.send(call))

    async def exchange(self, exchange: Exchange) -> dict[str, Any]:
        """The answer that several calls give together; files are read in a thread."""
        call, joined = await asyncio.to_thread(advance, exchange, None)
        while call is not None:
            try:
                answer: dict[str, Any] | APIError = await self.json(call)
            except APIError as error:
                answer = error
            call, joined = await asyncio.to_thread(advance, exchange, answer)
        return joined

    async def send(self, call: Call) -> httpx.Response:
        """The answer; a call that failed is sent again as `retries` says."""
        for attempt in itertools.count(1):
            try:
                return answers.checked(
                    await self._client.request(
                        call.method, call.path, params=call.params, json=call.json, headers=call.headers
                    )
                )
            except httpx.TransportError as error:
                failure: ClientError = answers.lost(error, self._client.base_url)
            except ClientError as error:
                failure = error
            pause_s = retries.pause_s(failure, attempt, self._max_attempts) if call.repeatable else None
            if pause_s is None:
                raise failure
            await asyncio.sleep(pause_s)
        raise AssertionError("attempts are counted without end")

    async def items(self, path: str, limit: int, **filters: Any) -> list[dict[str, Any]]:
        """The first of a list, over as many pages as they take."""
        found: list[dict[str, Any]] = []
        while len(found) < limit:
            after = found[-1]["id"] if found else None
            page = await self.json(calls.page(path, after=after, limit=limit - len(found), **filters))
            found += page["data"]
            if not page["has_more"]:
                break
        return found

    async def upload(self, form: Form) -> dict[str, Any]:
        """Send a data set, once."""
        try:
            response = await self._client.post(
                "/datasets", content=_in_thread(form.chunks()), headers=form.headers
            )
        except httpx.TransportError as error:
            raise answers.lost(error, self._client.base_url) from error
        return answers.json_of(answers.checked(response))

    async def download(self, call: Call, file: Path) -> None:
        """Write an answer to a file: whole, or not at all."""
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}.", delete=False) as part:
            try:
                async with self._client.stream(call.method, call.path, params=call.params) as response:
                    if response.is_error:
                        await response.aread()
                    async for chunk in answers.checked(response).aiter_bytes():
                        await asyncio.to_thread(part.write, chunk)
                part.flush()
                os.replace(part.name, file)
            except httpx.TransportError as error:
                raise answers.lost(error, self._client.base_url) from error
            finally:
                Path(part.name).unlink(missing_ok=True)

    async def lines(self, call: Call) -> AsyncIterator[str]:
        """An answer's lines, as they arrive."""
        try:
            async with self._client.stream(call.method, call.path, params=call.params) as response:
                if response.is_error:
                    await response.aread()
                async for line in answers.checked(response).aiter_lines():
                    yield line
        except httpx.TransportError as error:
            raise answers.lost(error, self._client.base_url) from error

    async def follow(self, follower: Follower) -> AsyncIterator[Frame]:
        """A job's frames until it ends; the service may come and go meanwhile."""
        while not follower.ended:
            failure: ClientError | None = None
            try:
                async with self._client.stream(
                    "GET",
                    follower.path,
                    params=follower.params,
                    headers=follower.headers,
                    timeout=connection.STREAM_TIMEOUT,
                ) as response:
                    if response.is_error:
                        await response.aread()
                    follower.opened(response)
                    async for chunk in response.aiter_bytes():
                        for frame in follower.feed(chunk):
                            yield frame
            except httpx.TransportError as error:
                failure = answers.lost(error, self._client.base_url)
            except ClientError as error:
                failure = error
            if not follower.ended:
                await asyncio.sleep(follower.pause_s(failure))


async def _in_thread(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
        yield chunk
