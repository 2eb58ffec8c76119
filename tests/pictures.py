"""Small pictures on disk, each of one colour that its number gives."""

import io
from pathlib import Path

import PIL.Image


def picture(number: int, format: str = "PNG") -> bytes:
    """The bytes of an 8 x 6 picture of grey level `number`."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (8, 6), (number, number, number)).save(buffer, format)
    return buffer.getvalue()


def save_pictures(folder: Path, names: list[str]) -> Path:
    """Picture k, in the format of its suffix, under the k-th name."""
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number, PIL.Image.registered_extensions()[file.suffix]))
    return folder
