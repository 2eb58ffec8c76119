"""Images of a request, decoded side by side; a bad one is that image's error and nobody else's."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from app.errors import InvalidRequest, ServiceError
from app.fetch import Fetcher
from app.images import Decoder
from app.schemas.common import ImageInput, UrlImage
from app.serving.served import Served


@dataclass(frozen=True)
class Decoded:
    """The images that can be answered, by their place in the request, and the errors of the others."""

    pixels: dict[int, Tensor]
    errors: dict[int, ServiceError]


class ImageReader:
    """Turns what a request holds for an image into preprocessed pixels."""

    def __init__(self, decoder: Decoder, fetcher: Fetcher | None) -> None:
        self._decoder = decoder
        self._fetcher = fetcher

    async def read(
        self, images: Sequence[ImageInput], served: Served, on_error: Literal["fail", "skip"]
    ) -> Decoded:
        """Decode every image. With `fail`, the first bad image in the request's order is raised."""
        results = await asyncio.gather(
            *(self._read_one(image, served, index) for index, image in enumerate(images))
        )
        errors = {index: result for index, result in enumerate(results) if isinstance(result, ServiceError)}
        if errors and on_error == "fail":
            raise next(iter(errors.values()))
        pixels = {index: result for index, result in enumerate(results) if isinstance(result, Tensor)}
        return Decoded(pixels, errors)

    async def _read_one(self, image: ImageInput, served: Served, index: int) -> Tensor | ServiceError:
        try:
            return await self._decoder.pixels(await self._file(image), served.clip)
        except InvalidRequest as error:
            error.param, error.index = "images", index
            return error

    async def _file(self, image: ImageInput) -> bytes | str:
        """The image's file, or its base64, which the decoder's threads undo."""
        if not isinstance(image, UrlImage):
            return image
        if self._fetcher is None:
            raise InvalidRequest(
                "This server does not fetch images; send the image itself as base64 or multipart.",
                code="image_url_disabled",
            )
        return await self._fetcher.fetch(image.url)
