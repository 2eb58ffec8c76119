"""The hashes of an unpacked archive's files, written when its data set is published.

The archive itself is not kept, so nothing else says later whether the files are still what they were.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from sds_clip.app.datasets.folders import FILES, storage_errors
from sds_clip.models.files import sha256_of

HASHES = "sha256.json"
"""In a data set's folder: the hash of every file below `files`. Data sets of older releases do not have it."""


def write_hashes(folder: Path, *, progress: Callable[[int, int], None] | None = None) -> None:
    """Write the hashes of the files in a data set's folder. Raises OSError, StorageFull."""
    files = list(_files(folder))
    hashes = {}
    for done, file in enumerate(files, start=1):
        hashes[file.relative_to(folder / FILES).as_posix()] = sha256_of(file)
        if progress is not None:
            progress(done, len(files))
    with storage_errors():
        (folder / HASHES).write_text(json.dumps(hashes), encoding="utf-8")


def first_wrong_file(folder: Path, *, is_quick: bool) -> Path | None:
    """The first file that is missing, was added or, unless `is_quick`, was changed. None if there are no hashes."""
    if not (folder / HASHES).exists():
        return None
    try:
        hashes: dict[str, str] = json.loads((folder / HASHES).read_text(encoding="utf-8"))
        expected = {folder / FILES / name: sha256 for name, sha256 in hashes.items()}
    except (OSError, ValueError, AttributeError):
        return folder / HASHES
    if different := expected.keys() ^ set(_files(folder)):
        return min(different)
    if is_quick:
        return None
    return next((file for file in sorted(expected) if hash_of(file) != expected[file]), None)


def hash_of(file: Path) -> str | None:
    """The SHA-256 of a file, or None if it cannot be read."""
    try:
        return sha256_of(file)
    except OSError:
        return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in (folder / FILES).rglob("*") if not path.is_dir())
