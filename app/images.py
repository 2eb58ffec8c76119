"""Images of a request on their way to pixels: base64 to bytes, then decoding in bounded threads."""

import asyncio
import binascii
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import torch
from torch import Tensor
from torchvision.transforms import Compose, Normalize

from app.errors import InvalidImage, Overloaded
from models.clip import Clip
from models.images import ImageError, ImageLimits, decode_image

Preprocess = Callable[[PIL.Image.Image], Tensor]

_RETRY_AFTER_S = 1
_DATA_URI = "data:"
_WHITESPACE = b" \t\r\n"


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
        raise InvalidImage(_base64_problem(value), code="invalid_base64") from None
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
        self._unfinished = 0
        self._fast: weakref.WeakKeyDictionary[Clip, Preprocess] = weakref.WeakKeyDictionary()

    async def pixels(self, image: bytes | str, clip: Clip) -> Tensor:
        """Pixels [3, h, w], float32, as the model's own transform makes them, of a file or its base64.

        Raises: InvalidImage with the decoder's code; Overloaded.
        """
        if self._unfinished >= self._max_unfinished:
            raise Overloaded("Too many images are waiting to be decoded.", retry_after_s=_RETRY_AFTER_S)
        preprocess = self._fast.get(clip)
        if preprocess is None:
            preprocess = self._fast[clip] = without_torch_threads(clip.preprocess)
        self._unfinished += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, self._decode, image, preprocess)
        # Counted until it is done, not until its request gives up: a running thread cannot be stopped.
        future.add_done_callback(self._finished)
        return await future

    def close(self) -> None:
        """Let running images finish, and drop those that wait."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _finished(self, _: object) -> None:
        self._unfinished -= 1

    def _decode(self, image: bytes | str, preprocess: Preprocess) -> Tensor:
        data = image_bytes(image, max_bytes=self.limits.max_bytes) if isinstance(image, str) else image
        try:
            return preprocess(decode_image(data, self.limits))
        except ImageError as error:
            raise InvalidImage(str(error), code=error.code) from None


def without_torch_threads(preprocess: Preprocess) -> Preprocess:
    """The same transform with its last two steps, to tensor and normalise, read from a table.

    Both are functions of one byte and its channel, so the 3 x 256 values that the steps themselves make are
    all there is, and the result is theirs to the last bit. Torch would start a team of threads in every
    decoding thread for it.
    A transform of another shape is returned as it is.
    """
    steps = list(preprocess.transforms) if isinstance(preprocess, Compose) else []
    if len(steps) < 2 or not isinstance(steps[-1], Normalize):
        return preprocess
    *on_image, to_tensor, normalize = steps
    every_byte = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    made = to_tensor(PIL.Image.fromarray(every_byte))
    if not isinstance(made, Tensor) or made.shape != (3, 256, 1):
        return preprocess
    table = normalize(made)[:, :, 0].numpy()

    def fast(image: PIL.Image.Image) -> Tensor:
        for step in on_image:
            image = step(image)
        pixels = np.asarray(image)
        out = np.empty((3, *pixels.shape[:2]), np.float32)
        for channel in range(3):
            np.take(table[channel], pixels[:, :, channel], out=out[channel], mode="clip")
        return torch.from_numpy(out)

    return fast


def _too_large(max_bytes: int) -> InvalidImage:
    return InvalidImage(
        f"The image file has more than the {max_bytes} bytes that are allowed. Make it smaller.",
        code="image_too_large",
    )


def _base64_problem(value: str) -> str:
    if "-" in value or "_" in value:
        return "The image is in URL-safe base64; use the standard alphabet, with + and /."
    if len("".join(value.split())) % 4:
        return "The base64 has a wrong length: it was cut, or its = padding is missing. Send all of it."
    return "The image is not base64 (A-Z, a-z, 0-9, + and /, padded with =)."
