"""Turns stored pictures, whose bytes came from users, into what a browser may show."""

import asyncio
import io
from collections.abc import Callable
from dataclasses import dataclass

from sds_clip.app.budgets import Budget
from sds_clip.app.decoder import Decoder
from sds_clip.app.errors import InvalidImage
from sds_clip.app.threads import in_own_thread
from sds_clip.models.images.decode import ImageFile, decode_file
from sds_clip.models.images.ref import Box
from sds_clip.models.images.thumbnails import cropped

# The decoder's other threads are left to requests that compute.
_AT_ONCE, _WAITING = 2, 256
_EXACT_SIDE = 128
"""A picture that is made anew is a PNG up to this many pixels on its longer side, and a JPEG above."""
_QUALITY = 85


@dataclass(frozen=True)
class Picture:
    """The content of an image file, and its media type by content."""

    data: bytes
    media_type: str


class Pictures:
    """Reads and checks pictures, a few at a time, within the decoder's limits."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._waiting = Budget(_WAITING, "pictures")

    async def of(self, read: Callable[[], bytes], *, box: Box | None, max_side: int | None) -> Picture:
        """The picture in the bytes that `read` returns: the file as it is, its box, or a smaller copy.

        Raises: InvalidImage for a file that cannot be decoded, whatever is asked of it; Overloaded; what `read`
        raises.
        """
        with self._waiting.hold():
            async with self._turns:
                data = await in_own_thread(read, "read picture")
                try:
                    return await self._decoder.decoded(
                        data, lambda file: _picture(file, data, box, max_side), max_side=0
                    )
                except InvalidImage as error:
                    raise InvalidImage(
                        f"This picture cannot be shown. {error.message}", code=error.code
                    ) from None


def _picture(file: ImageFile, data: bytes, box: Box | None, max_side: int | None) -> Picture:
    # A box is measured in the pixels that the model sees, which is given the file without its orientation.
    image = decode_file(file, orient=box is None)
    if box is not None:
        image = cropped(image, box)
    is_large = max_side is not None and max(image.size) > max_side
    if box is None and not is_large:
        return Picture(data, f"image/{file.format.lower()}")
    if max_side is not None and is_large:
        image.thumbnail((max_side, max_side))
    image.info.clear()
    encoded = io.BytesIO()
    if max(image.size) <= _EXACT_SIDE:
        image.save(encoded, "PNG")
        return Picture(encoded.getvalue(), "image/png")
    image.save(encoded, "JPEG", quality=_QUALITY)
    return Picture(encoded.getvalue(), "image/jpeg")
