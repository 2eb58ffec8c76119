"""Turns the images of a request into pixels: base64 to bytes, then decoding in a bounded pool of threads."""

import asyncio
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import pybase64
from torch import Tensor

from sds_clip.app.decode_budget import DecodeBudget
from sds_clip.app.errors import InvalidImage, OutOfMemory, Overloaded, ServiceError, UnusableImage
from sds_clip.models.clip.model import Clip
from sds_clip.models.images.decode import (
    ImageError,
    ImageFile,
    ImageLimits,
    ImageTooLarge,
    decode_file,
    decoding_size_bytes,
    open_image,
)
from sds_clip.models.machine import release_free_memory

Result = TypeVar("Result")

_RETRY_AFTER_S = 1
# The C allocator keeps freed memory. After an image above this size it is returned to the system at once,
# otherwise every few seconds.
_LARGE_BYTES = 32 * 2**20
_RELEASE_EVERY_S = 10.0
_DATA_URI = "data:"
_WHITESPACE = " \t\r\n"
# Recognises a path that was sent in place of a file. The base64 of a JPEG begins with /9j/ and is not a path.
_PATH = re.compile(r"(\.{1,2}[/\\]|~|(?i:file:))[^\0\n]*|/(?!9j/)[^\0\n+=]+|[^\0\n]*\.[A-Za-z0-9]{1,5}")
_MAX_PATH_CHARS = 4096
_BASE64 = re.compile(r"[A-Za-z0-9+/=]*")


def image_bytes(value: str, *, max_bytes: int) -> bytes:
    """Decode a data URI (`data:image/png;base64,...`) or bare base64 to the bytes of a file.

    It accepts the standard alphabet with padding, and the spaces and line breaks that `base64` writes.

    Raises: InvalidImage for anything else, and for more than `max_bytes`, which is checked before decoding.
    """
    if value[:5].lower() == _DATA_URI:
        head, comma, value = value.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise UnusableImage(
                "The data URI is not valid; write it as data:image/png;base64,...", code="invalid_data_uri"
            )
    elif value[:8].lower().startswith(("http://", "https://")):
        raise UnusableImage(
            'This is a URL. Send the image itself, or {"url": "..."} if this server fetches images.',
            code="invalid_base64",
        )
    if any(space in value for space in _WHITESPACE):
        value = value.translate(str.maketrans("", "", _WHITESPACE))
    # The least that base64 of this length can decode to: padding takes up to two bytes.
    if len(value) // 4 * 3 - 2 > max_bytes:
        raise _too_large(max_bytes)
    try:
        data = pybase64.b64decode(value, validate=True)
    except ValueError:
        raise _not_base64(value) from None
    if len(data) > max_bytes:
        raise _too_large(max_bytes)
    return data


class Decoder:
    """Decodes and preprocesses images in its own threads, which keeps the event loop free and memory bounded.

    At most `threads` images are in decoded form at once, and together they take at most `max_bytes`.
    Raises: Overloaded when `max_waiting` images are waiting.
    """

    def __init__(self, limits: ImageLimits, *, threads: int, max_bytes: int, max_waiting: int) -> None:
        self.limits = limits
        self.threads = threads
        self.budget = DecodeBudget(max_bytes)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._max_unfinished = threads + max_waiting
        self._lock = threading.Lock()
        self._release: asyncio.TimerHandle | None = None
        self._decoded_since_release = False
        self.unfinished = 0
        """The number of images that are being decoded or waiting for it."""

    async def pixels(
        self, image: bytes | str, clip: Clip, took: Callable[[float], object] = lambda seconds: None
    ) -> Tensor:
        """Decode a file or its base64, and apply the model's own transform: [3, h, w], float32.

        `took` is called with the seconds that it computed, in the event loop, also if its request is gone.

        Raises: InvalidImage with the decoder's code; Overloaded.
        """
        loop = asyncio.get_running_loop()

        def use(file: ImageFile) -> Tensor:
            began = time.thread_time()
            try:
                return clip.preprocess(decode_file(file))
            finally:
                loop.call_soon_threadsafe(took, time.thread_time() - began)

        return await self.decoded(image, use, max_side=max(clip.image_size), least_side=clip.least_side)

    async def decoded(
        self,
        image: bytes | str,
        use: Callable[[ImageFile], Result],
        *,
        max_side: int,
        least_side: int = 0,
    ) -> Result:
        """Open a file or its base64, and return what `use` makes of it, which decodes it once, in a thread.

        `max_side` is the length that `use` resizes the shorter side to, 0 for less than it was. `least_side` is as in
        `open_image`.

        Raises: InvalidImage with the decoder's code; Overloaded.
        """
        if self.unfinished >= self._max_unfinished:
            raise Overloaded(
                "Too many images are waiting to be decoded; try again later.", retry_after_s=_RETRY_AFTER_S
            )
        given_up = threading.Event()
        opening = partial(self._open, image, max_side, least_side)
        future = self._pool.submit(self._decode, opening, use, given_up)
        self._count(+1)
        # An image counts until its thread is done, even if its request is gone: a thread cannot be stopped.
        future.add_done_callback(lambda _: self._count(-1))
        try:
            outcome = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            given_up.set()
            self.budget.wake()
            raise
        finally:
            del future  # breaks a reference cycle: the future holds the error, which holds this frame
            self._decoded_since_release = True
            if self._release is None:
                self._release_later()
        if isinstance(outcome, ServiceError):
            try:
                raise outcome
            finally:
                del outcome  # breaks a reference cycle: the error holds this frame, which holds the image
        return outcome

    def close(self) -> None:
        """Wait for images that are being decoded, and drop those that are waiting."""
        if self._release is not None:
            self._release.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _count(self, change: int) -> None:
        with self._lock:
            self.unfinished += change

    def _release_later(self) -> None:
        self._release = asyncio.get_running_loop().call_later(_RELEASE_EVERY_S, self._release_now)

    def _release_now(self) -> None:
        """Release the memory that recent images left, in a thread, because it takes milliseconds.

        An image's body is freed only after its answer. The last image therefore needs one more release, a
        full period later.
        """
        self._release = None
        self._pool.submit(release_free_memory)
        if self._decoded_since_release:
            self._decoded_since_release = False
            self._release_later()

    def _decode(
        self,
        opening: Callable[[], tuple[ImageFile, int]],
        use: Callable[[ImageFile], Result],
        given_up: threading.Event,
    ) -> Result | ServiceError:
        # Files are opened one at a time: the memory used before a file's size is known is not in the budget.
        with self.budget.turn():
            opened = _outcome(opening)
            if isinstance(opened, ServiceError):
                return opened
            file, size_bytes = opened
            if not self.budget.take(size_bytes, given_up.is_set):
                raise CancelledError
        try:
            used = _outcome(lambda: use(file))
            if size_bytes >= _LARGE_BYTES:
                release_free_memory()
            return used
        finally:
            self.budget.give_back(size_bytes)

    def _open(self, image: bytes | str, max_side: int, least_side: int) -> tuple[ImageFile, int]:
        """The opened file, and the number of bytes that it takes from the budget."""
        data = image_bytes(image, max_bytes=self.limits.max_bytes) if isinstance(image, str) else image
        file = open_image(data, self.limits, least_side=least_side)
        size_bytes = decoding_size_bytes(file, max_side=max_side)
        if size_bytes > self.budget.max_bytes:
            raise UnusableImage(
                f"Decoding this image ({file.format}, {file.width} x {file.height}) could take {size_bytes} "
                f"bytes of memory; the server allows {self.budget.max_bytes} (its setting max_decode_bytes). "
                "Make it smaller.",
                code="image_over_memory_limit",
            )
        return file, size_bytes


def _outcome(call: Callable[[], Result]) -> Result | ServiceError:
    """The result of a call, or a new copy of its error.

    The original error's traceback would keep the file and its decoded data alive.
    """
    try:
        return call()
    except (ImageError, InvalidImage) as error:
        return InvalidImage(str(error), code=error.code)
    except MemoryError:
        return OutOfMemory()


def _too_large(max_bytes: int) -> InvalidImage:
    return InvalidImage(
        f"The image file has more than {max_bytes} bytes, which is the limit; make it smaller.",
        code=ImageTooLarge.code,
    )


def _not_base64(value: str) -> InvalidImage:
    if len(value) <= _MAX_PATH_CHARS and _PATH.fullmatch(value):
        return UnusableImage(
            "This is the path of a file, not its content. With curl, send it in a form as images=@PATH. "
            "Otherwise, send the file's content as base64.",
            code="image_is_path",
        )
    return UnusableImage(_base64_problem(value), code="invalid_base64")


def _base64_problem(value: str) -> str:
    if "-" in value or "_" in value:
        return "The image is in URL-safe base64; use the standard alphabet, with + and /."
    if not _BASE64.fullmatch(value):
        return "The image has characters that base64 does not use; send the file's content as base64."
    if len(value) % 4:
        return "The base64 text has a wrong length. Its end or its padding is missing; send all of it."
    return "The image is not valid base64; the padding with = must be at its end."
