"""Images as callers send them: base64 to bytes, and bytes to pixels in bounded threads."""

import asyncio
import base64
import binascii
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from app.errors import InvalidImage
from models.clip import Clip
from models.images import ImageError, ImageLimits, decode_image


def image_bytes(value: str, *, max_bytes: int) -> bytes:
    """The bytes of a data URI or of bare base64 (RFC 4648, standard alphabet, padded, no line breaks).

    Raises InvalidImage, before decoding where the text is too long already.
    """
    encoded = value
    if value.startswith("data:"):
        header, comma, encoded = value.partition(",")
        if not comma or not header.endswith(";base64"):
            raise InvalidImage(
                "The data URI is not base64; write it as data:image/png;base64,...", code="image_encoding"
            )
    if len(encoded) > 4 * (max_bytes // 3 + 1):
        raise InvalidImage(
            f"The image has more than the {max_bytes} bytes that are allowed.", code="image_too_large"
        )
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidImage(
            "The image is not valid base64: use the standard alphabet, '=' padding and no line breaks.",
            code="image_encoding",
        ) from None


class Decoder:
    """Decodes and preprocesses in a fixed number of threads, while the model computes in its own."""

    def __init__(self, limits: ImageLimits, *, threads: int) -> None:
        self.limits = limits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def pixels(self, data: bytes, clip: Clip) -> Tensor:
        """Preprocessed pixels [3, h, w], float32. Raises InvalidImage."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._decode, data, clip)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _decode(self, data: bytes, clip: Clip) -> Tensor:
        try:
            return clip.preprocess(decode_image(data, self.limits))
        except ImageError as error:
            raise InvalidImage(str(error), code=error.code) from None
