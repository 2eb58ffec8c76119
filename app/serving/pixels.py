"""Decodes the images of a request side by side. A bad image is an error of that image only."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from app.errors import ImageUrlDisabled, InvalidRequest, ServiceError
from app.fetch import Fetcher
from app.images import Decoder
from app.metrics import Metrics
from app.schemas.common import ImageInput, UrlImage
from models.clip import Clip


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


class ImageReader:
    """Turns the images of a request into pixels, preprocessed as the model's own transform does."""

    def __init__(self, decoder: Decoder, fetcher: Fetcher | None, metrics: Metrics) -> None:
        self._decoder = decoder
        self._fetcher = fetcher
        self._metrics = metrics

    async def read(
        self, images: Sequence[ImageInput], clip: Clip, on_error: Literal["fail", "skip"]
    ) -> Decoded:
        """Decode every image. With `fail`, raise the error of the first bad image in the request's order."""
        results = await self._read_all(images, clip)
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

    async def _read_all(self, images: Sequence[ImageInput], clip: Clip) -> list[Tensor | ServiceError]:
        # Few enough that another request's image is decoded soon, and enough to keep all threads busy.
        slots = asyncio.Semaphore(2 * self._decoder.threads)
        tasks = [
            asyncio.ensure_future(self._read_one(image, clip, index, slots))
            for index, image in enumerate(images)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _read_one(
        self, image: ImageInput, clip: Clip, index: int, slots: asyncio.Semaphore
    ) -> Tensor | ServiceError:
        try:
            if not isinstance(image, UrlImage):
                return await self._decode(image, clip, slots)
            if self._fetcher is None:
                raise ImageUrlDisabled(
                    "This server does not fetch images from URLs; send the image itself as base64 or multipart.",
                )
            async with self._fetcher.slots:
                return await self._decode(await self._fetcher.fetch(image.url), clip, slots)
        except InvalidRequest as error:
            error.param, error.index = "images", index
            return error

    async def _decode(self, file: bytes | str, clip: Clip, slots: asyncio.Semaphore) -> Tensor:
        started_at = time.monotonic()
        async with slots:
            pixels = await self._decoder.pixels(file, clip)
        self._metrics.stage("decode", time.monotonic() - started_at)
        return pixels
