"""Decodes the images of a request side by side. A bad image is an error of that image only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from sds_clip.app.budgets import Rate
from sds_clip.app.decoder import Decoder
from sds_clip.app.errors import ImageUrlDisabled, InvalidRequest, ServiceError
from sds_clip.app.metrics import Metrics
from sds_clip.app.schemas.common import ImageInput, UrlImage
from sds_clip.app.serving import turns
from sds_clip.models.clip.model import Clip

if TYPE_CHECKING:
    from sds_clip.app.fetch import Fetcher

SHARE_OF_THREADS = 1 / 8
"""Of the threads that decode, what one key's images may take while other keys are active."""


@dataclass(frozen=True)
class Decoded:
    """The decoded images by their position in the request, and the errors of the others."""

    pixels: dict[int, Tensor]
    errors: dict[int, ServiceError]


class RequestImages:
    """The images of one request, decoded once for all models of a base."""

    def __init__(self, decode: Callable[[Clip], Awaitable[Decoded]]) -> None:
        self._decode = decode
        self._decoding: dict[object, asyncio.Future[Decoded]] = {}

    async def of(self, clip: Clip) -> Decoded:
        if clip.preprocess not in self._decoding:
            self._decoding[clip.preprocess] = asyncio.ensure_future(self._decode(clip))
        return await asyncio.shield(self._decoding[clip.preprocess])

    def raised(self, error: Exception) -> bool:
        """Whether that is why the images could not be decoded."""
        ended = (task for task in self._decoding.values() if task.done() and not task.cancelled())
        return any(task.exception() is error for task in ended)

    async def close(self) -> None:
        """Give up what is still being decoded."""
        for task in self._decoding.values():
            task.cancel()
        await asyncio.gather(*self._decoding.values(), return_exceptions=True)


@dataclass(eq=False)
class ImageReader:
    """Turns the images of a request into pixels, preprocessed as the model's own transform does.

    While several keys are active (`shared`), a request's images are decoded one after the other, and a key whose images
    have taken more than its share of the threads waits before the next one. So large photos of one key leave the cores
    to the others.
    """

    _decoder: Decoder
    _fetcher: Fetcher | None
    _metrics: Metrics
    _shared: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._seconds = Rate(SHARE_OF_THREADS * self._decoder.threads)

    async def read(
        self,
        images: Sequence[ImageInput],
        clip: Clip,
        on_error: Literal["fail", "skip"],
        *,
        caller: str = "",
    ) -> Decoded:
        """Decode every image. With `fail`, raise the error of the first bad image in the request's order.

        `caller` is the name of an API key, or "" for none.
        """
        results = await self._read_all(images, clip, caller)
        errors = {index: result for index, result in enumerate(results) if isinstance(result, ServiceError)}
        if errors and on_error == "fail":
            first = next(iter(errors.values()))
            del results, errors
            try:
                raise first
            finally:
                del first  # breaks a reference cycle: the error holds this frame, which holds the images
        pixels = {index: result for index, result in enumerate(results) if isinstance(result, Tensor)}
        return Decoded(pixels, errors)

    async def _read_all(
        self, images: Sequence[ImageInput], clip: Clip, caller: str
    ) -> list[Tensor | ServiceError]:
        # Few enough that another request's image is decoded soon, and enough to keep all threads busy.
        slots = asyncio.Semaphore(1 if self._shared() else 2 * self._decoder.threads)

        computed = turns.meter()

        def took(seconds: float) -> None:
            self._seconds.owe(caller, seconds)
            computed(seconds)

        async def decode(file: bytes | str) -> Tensor:
            began = time.monotonic()
            async with slots:
                if self._shared():
                    await asyncio.sleep(self._seconds.debt_s(caller))
                    await turns.give_way()
                pixels = await self._decoder.pixels(file, clip, took)
            self._metrics.stage("decode", time.monotonic() - began)
            return pixels

        if len(images) <= 1:  # needs no task
            return [await self._read_one(image, 0, decode) for image in images]
        tasks = [
            asyncio.ensure_future(self._read_one(image, index, decode)) for index, image in enumerate(images)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _read_one(
        self, image: ImageInput, index: int, decode: Callable[[bytes | str], Awaitable[Tensor]]
    ) -> Tensor | ServiceError:
        try:
            if not isinstance(image, UrlImage):
                return await decode(image)
            if self._fetcher is None:
                raise ImageUrlDisabled(
                    "This server does not fetch images from URLs; send the image itself as base64 or multipart.",
                )
            async with self._fetcher.slots:
                return await decode(await self._fetcher.fetch(image.url))
        except InvalidRequest as error:
            error.param, error.index = "images", index
            return error
