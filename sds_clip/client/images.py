"""Accepted kinds of images: a file, bytes, a PIL image, an array, a data URI, or a URL if the service fetches those."""

from __future__ import annotations

import base64
import contextlib
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from sds_clip.client.errors import UnreadableFile

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

ImageLike: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | IO[bytes] | Image.Image | np.ndarray[Any, Any]"
)

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # the modes that PNG can hold; others become RGB
_ONE = (str, bytes, bytearray, os.PathLike)


def listed(images: Iterable[ImageLike]) -> list[ImageLike]:
    """Check that the files among the images can be opened. File objects are read from their start.

    Raises: TypeError for one image instead of a list; UnreadableFile for a file that cannot be opened.
    """
    if isinstance(images, _ONE) or hasattr(images, "read") or _is_picture(images) or _is_one_array(images):
        raise TypeError("images must be a list, but it is one image; put it into a list: [image].")
    return [_opened(image, index) for index, image in enumerate(images)]


def encoded(image: Any, index: int) -> str | dict[str, str]:
    """Encode an image for the API. Raises UnreadableFile, or TypeError if it cannot be an image."""
    if _is_url(image):
        return str(image) if _is_data_uri(image) else {"url": str(image)}
    try:
        return base64.b64encode(_content(image, index)).decode()
    except OSError as error:  # PIL reads a file's pixels only now
        raise _unreadable(error, image, index) from error


def _opened(image: Any, index: int) -> Any:
    """Check that files can be opened, so that nothing is sent if one of many cannot."""
    try:
        if isinstance(image, str | os.PathLike) and not _is_url(image):
            Path(image).open("rb").close()
        elif hasattr(image, "read"):
            return _read(image, index)
    except OSError as error:
        raise _unreadable(error, image, index) from error
    return image


def _read(file: IO[bytes], index: int) -> bytes:
    if file.seekable():  # it may be at its end after writing
        file.seek(0)
    content: object = None
    with contextlib.suppress(UnicodeDecodeError):  # raised by a text file, rejected below
        content = file.read()
    if not isinstance(content, bytes):
        raise TypeError(f'images[{index}] is a file that was opened as text; open it with mode "rb".')
    return content


def _content(image: Any, index: int) -> bytes:
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if _is_picture(image):
        return _png(image)
    if hasattr(image, "__array_interface__"):
        return _png(_picture(image, index))
    raise TypeError(
        f"images[{index}] is a {type(image).__name__}, but an image must be a path, a URL, a data URI, bytes, a file "
        "object, a PIL image or a uint8 array."
    )


def _picture(array: np.ndarray[Any, Any], index: int) -> Image.Image:
    from PIL import Image

    shape, kind = tuple(array.shape), str(array.dtype)
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))
    if kind != "uint8" or not is_image or 0 in shape:
        raise TypeError(
            f"images[{index}] is a {kind} array of shape {shape}. An array must be uint8 and of shape (height, width), "
            "(height, width, 3) for RGB, or (height, width, 4) for RGBA."
        )
    return Image.fromarray(array[:, :, 0] if shape[2:] == (1,) else array)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _is_url(image: object) -> bool:
    return _is_data_uri(image) or (isinstance(image, str) and image.startswith(("http://", "https://")))


def _is_data_uri(image: object) -> bool:
    return isinstance(image, str) and image[:5].lower() == "data:"


def _is_picture(image: object) -> bool:
    """Whether it is a PIL image, without importing PIL, which may not be installed."""
    return hasattr(image, "save") and hasattr(image, "mode")


def _is_one_array(images: object) -> bool:
    """Whether an array is a single image, not a batch [count, height, width, channels]."""
    return hasattr(images, "__array_interface__") and len(images.shape) < 4  # type: ignore[attr-defined]


def _unreadable(error: OSError, image: object, index: int) -> UnreadableFile:
    path = image if isinstance(image, str | os.PathLike) else getattr(image, "filename", None) or "the image"
    return UnreadableFile(
        f"{os.fspath(path)} cannot be read: {error.strerror or error}.", param="images", index=index
    )
