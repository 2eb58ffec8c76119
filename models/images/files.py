"""Image files on disk: the suffixes that they have, and how their bytes are read, alone or out of an archive."""

import stat
from pathlib import Path

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif")
MAX_IMAGE_BYTES = 20 * 2**20


class ImageFileError(Exception):
    """An image file cannot be read. The message continues a sentence that begins with the file's name."""


class NoImageFile(ImageFileError):
    """There is no such file."""


def read_image_file(path: Path, *, offset: int = 0, size: int | None = None) -> bytes:
    """Return the bytes of an image file, or of a member of an archive, which has `size` bytes from `offset` on.

    A pipe or a device, which may never end, is not opened, and a file that is too large is not read.

    Raises:
        NoImageFile or ImageFileError: it does not exist, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageFileError("is not a file")
        expected = status.st_size if size is None else size
        if expected > MAX_IMAGE_BYTES:
            raise ImageFileError(f"has {expected} bytes; at most {MAX_IMAGE_BYTES} are allowed")
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read() if size is None else file.read(size)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoImageFile("does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ImageFileError(f"cannot be read ({reason})") from error
    if size is not None and len(data) < size:
        raise ImageFileError("ends in the middle of the image")
    return data
