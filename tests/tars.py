"""Tar archives of small files."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path


def tar_of(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    """The archive of these files, in their order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def save_tar(file: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    file.write_bytes(tar_of(files, mode))
    return file
