"""The check of a Winoground set: every line, and every image decoded."""

import hashlib
import json
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from app.datasets.checks import CheckResult, Content, Problems, Progress, rejected
from app.datasets.errors import ArchiveFormat
from app.datasets.unpack import content_root
from models.evaluation.errors import EvaluationError
from models.evaluation.winoground import WinogroundItem, read_winoground
from models.images import ImageError, ImageLimits, decode_image
from models.machine import usable_cores

MAX_EXAMPLES_BYTES = 64 * 2**20
"""Of examples.jsonl, which is read into memory: a hundred times what the published set has."""
_AT_ONCE = 256
_LIMITS = ImageLimits()


class _Missing(EvaluationError):
    """There is no such image file."""

    code = "missing_file"


class _Unreadable(EvaluationError):
    """An image file that cannot be read, or is none."""

    code = "image_unreadable"


def check_winoground(
    content: Content, *, max_bad_share: float = 0.0, progress: Progress | None = None
) -> CheckResult:
    """Check a folder with examples.jsonl and images/, also one folder further down, as archives often have it.

    Items whose images are missing or unreadable are left out, up to `max_bad_share` of them. The hash is over the
    others in order: id, captions, tags and the images' content, not their names.
    """
    if not content.is_folder:
        return rejected(ArchiveFormat("A Winoground set is a folder, not shards; send its archive."))
    folder = content_root(content.paths[0])
    try:
        items = _read(folder)
    except EvaluationError as error:
        return rejected(error, hidden=folder)
    problems = Problems(hidden=folder)
    hashes = _image_hashes(
        list(dict.fromkeys(path for item in items for path in item.images)), problems, progress
    )
    usable = [item for item in items if all(path in hashes for path in item.images)]
    images = {path for item in usable for path in item.images}
    counts = {"items": len(items), "usable": len(usable), "images": len(images)}
    if not usable or len(items) - len(usable) > max_bad_share * len(items):
        return problems.rejected(counts)
    return CheckResult(True, _content_hash(usable, hashes), counts, tuple(problems.listed), problems.count)


def _read(folder: Path) -> list[WinogroundItem]:
    examples = folder / "examples.jsonl"
    if examples.is_file() and examples.stat().st_size > MAX_EXAMPLES_BYTES:
        raise EvaluationError(f"{examples}: is over {MAX_EXAMPLES_BYTES} bytes; split the set.")
    return read_winoground(folder, allow_missing=True)


def _image_hashes(paths: Sequence[Path], problems: Problems, progress: Progress | None) -> dict[Path, str]:
    """SHA-256 of each file, decoded once; only as many images as there are threads are held at a time."""
    hashes: dict[Path, str] = {}
    looked_at = 0
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="check") as pool:
        for batch in _batches(paths):
            for path, found in zip(batch, pool.map(_hash_or_error, batch), strict=True):
                if isinstance(found, str):
                    hashes[path] = found
                else:
                    problems.add(found.code, f"{path}: {found}")
            looked_at += len(batch)
            if progress is not None:
                progress(looked_at, len(paths))
    return hashes


def _batches(paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    return (paths[start : start + _AT_ONCE] for start in range(0, len(paths), _AT_ONCE))


def _hash_or_error(path: Path) -> str | ImageError | EvaluationError:
    try:
        data = _read_file(path)
        decode_image(data, _LIMITS, orient=False)
    except (ImageError, EvaluationError) as error:
        return error
    return hashlib.sha256(data).hexdigest()


def _read_file(path: Path) -> bytes:
    """The file's bytes; a pipe or a device, which may never end, is not opened."""
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and status.st_size <= _LIMITS.max_bytes:
            return path.read_bytes()
    except FileNotFoundError as error:
        raise _Missing("there is no such file.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file name"
        raise _Unreadable(f"cannot be read ({reason}).") from error
    raise _Unreadable(f"is not a file, or has more than {_LIMITS.max_bytes} bytes.")


def _content_hash(items: Sequence[WinogroundItem], hashes: dict[Path, str]) -> str:
    total = hashlib.sha256(b"winoground\n")
    for item in items:
        images = [hashes[path] for path in item.images]
        line = [item.id, images, item.captions, item.tag, item.secondary_tag, item.collapsed_tag]
        total.update(json.dumps(line).encode() + b"\n")
    return total.hexdigest()
