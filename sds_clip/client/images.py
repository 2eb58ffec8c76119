"""What can stand for an image: a file, its bytes, a PIL image, or a URL where the service fetches those."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from PIL import Image

ImageLike: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image"

_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def encoded(image: ImageLike) -> str | dict[str, str]:
    """An image as the API has it. Raises OSError for a file that cannot be read."""
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        return {"url": image}
    if isinstance(image, bytes):
        content = image
    elif isinstance(image, str | os.PathLike):
        content = Path(image).read_bytes()
    else:
        content = _png(image)
    return base64.b64encode(content).decode()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
