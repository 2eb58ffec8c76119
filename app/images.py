"""Images of a request on their way to pixels: base64 to bytes, then decoding in bounded threads."""

import asyncio
import binascii
import re
import threading
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from app.errors import InvalidImage, Overloaded
from models.clip import Clip
from models.images import ImageError, ImageLimits, decode_image

_RETRY_AFTER_S = 1
_DATA_URI = "data:"
_WHITESPACE = b" \t\r\n"
_PATH = re.compile(r"(\.{1,2}[/\\]|~)[^\0\n]*|[^\0\n]*\.[A-Za-z0-9]{1,5}")
_MAX_PATH_CHARS = 4096


def image_bytes(value: str, *, max_bytes: int) -> bytes:
    """The file in a data URI (`data:image/png;base64,...`) or in bare base64.

    The standard alphabet with its padding; spaces and line breaks are allowed, as `base64` writes them.

    Raises: InvalidImage, for anything else and, before it is decoded, for more than `max_bytes`.
    """
    if value[:5].lower() == _DATA_URI:
        head, comma, value = value.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidImage(
                "The data URI is not of the form data:image/png;base64,...", code="invalid_data_uri"
            )
    elif value[:8].lower().startswith(("http://", "https://")):
        raise InvalidImage('To have a URL fetched, send {"url": "..."} in its place.', code="invalid_base64")
    try:
        encoded = value.encode("ascii").translate(None, _WHITESPACE)
        if len(encoded) // 4 * 3 - 2 > max_bytes:
            raise _too_large(max_bytes)
        data = binascii.a2b_base64(encoded, strict_mode=True)
    except (UnicodeEncodeError, binascii.Error):
        raise _not_base64(value) from None
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


class Decoder:
    """Decodes and preprocesses in threads of its own, so that the event loop stays free and memory bounded.

    At most `threads` images are in decoded form at once. Raises: Overloaded when `max_waiting` images wait.
    """

    def __init__(self, limits: ImageLimits, *, threads: int, max_waiting: int = 512) -> None:
        self.limits = limits
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._max_unfinished = threads + max_waiting
        self._lock = threading.Lock()
        self.unfinished = 0
        """Images that are being decoded or wait for it."""

    async def pixels(self, image: bytes | str, clip: Clip) -> Tensor:
        """Pixels [3, h, w], float32, as the model's own transform makes them, of a file or its base64.

        Raises: InvalidImage with the decoder's code; Overloaded.
        """
        if self.unfinished >= self._max_unfinished:
            raise Overloaded("Too many images are waiting to be decoded.", retry_after_s=_RETRY_AFTER_S)
        self._count(+1)
        future = self._pool.submit(self._decode, image, clip)
        # Counted until it is done, though its request may be gone: a thread cannot be stopped.
        future.add_done_callback(lambda _: self._count(-1))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let running images finish, and drop those that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _count(self, change: int) -> None:
        with self._lock:
            self.unfinished += change

    def _decode(self, image: bytes | str, clip: Clip) -> Tensor:
        data = image_bytes(image, max_bytes=self.limits.max_bytes) if isinstance(image, str) else image
        try:
            return clip.preprocess(decode_image(data, self.limits))
        except ImageError as error:
            raise InvalidImage(str(error), code=error.code) from None


def _too_large(max_bytes: int) -> InvalidImage:
    return InvalidImage(
        f"The image file has more than the {max_bytes} bytes that are allowed. Make it smaller.",
        code="image_too_large",
    )


def _not_base64(value: str) -> InvalidImage:
    if len(value) <= _MAX_PATH_CHARS and _PATH.fullmatch(value):
        return InvalidImage(
            "This is the path of a file and not the file: write images=@PATH in a form sent by curl, or send the "
            "file's content as base64.",
            code="image_is_path",
        )
    return InvalidImage(_base64_problem(value), code="invalid_base64")


def _base64_problem(value: str) -> str:
    if "-" in value or "_" in value:
        return "The image is in URL-safe base64; use the standard alphabet, with + and /."
    if len("".join(value.split())) % 4:
        return "The base64 has a wrong length: it was cut, or its = padding is missing. Send all of it."
    return "The image is not base64 (A-Z, a-z, 0-9, + and /, padded with =)."
