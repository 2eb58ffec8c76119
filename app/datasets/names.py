"""Names of archive entries: which may be written to disk, and which are duplicates."""

import hashlib
import re
import unicodedata
from functools import lru_cache, partial

from sds_clip.app.datasets.archive_limits import ArchiveLimits
from sds_clip.app.errors import InvalidArchive

MAX_PART_BYTES = 255  # for one part of a path: the usual limit of file systems
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")

unsafe = partial(InvalidArchive, code="archive_member_unsafe")


def decode_name(raw: bytes) -> str:
    """Decode a name.

    Raises: InvalidArchive unless it is UTF-8; any other encoding would be a guess.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise unsafe(
            "the name is not UTF-8; pack the files again with names in UTF-8.",
            member=raw.decode("utf-8", "backslashreplace"),
        ) from None


def member_parts(name: str, limits: ArchiveLimits, *, is_folder: bool) -> tuple[str, ...]:
    """Split a name into its folders and last part. The archive's own top folder, `./`, has no parts.

    Raises: InvalidArchive for a name that leads outside the target on any system, and for one that is too long
    or too deep.
    """
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if reason := _why_unsafe(name, parts, limits, is_folder=is_folder):
        raise unsafe(reason, member=name)
    return parts


def _why_unsafe(name: str, parts: tuple[str, ...], limits: ArchiveLimits, *, is_folder: bool) -> str | None:
    if name.startswith("/"):
        return "the path is absolute; pack the files with paths relative to their folder."
    if "\\" in name or _DRIVE.match(name):
        return "the path is a Windows path; pack the files with / between folders."
    if not name or _CONTROL.search(name):
        return "the name is empty or contains control characters; rename the file."
    if not is_folder and name.rpartition("/")[2] == ".":
        return "the entry is a file, but its name is that of a folder; rename it."
    if ".." in parts:
        return "the path contains `..`; pack the files with paths relative to their folder."
    if len(name.encode()) > limits.max_name_bytes or any(
        len(part.encode()) > MAX_PART_BYTES for part in parts
    ):
        return (
            f"the path has more than {limits.max_name_bytes} bytes, or a part of it more than {MAX_PART_BYTES}; "
            "shorten the names."
        )
    if len(parts) > limits.max_depth:
        return f"the entry is more than {limits.max_depth} folders deep; use fewer levels of folders."
    return None


def is_clutter(parts: tuple[str, ...]) -> bool:
    """Whether this is a file that macOS adds to archives, which is not part of the data."""
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


class NameBook:
    """The names seen so far, as digests, because 500,000 long names would take gigabytes of memory.

    Names that differ only in case or Unicode normalisation count as equal, because some file systems would
    take them for one when the data set is copied.
    """

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._marks: dict[bytes, bytes | int] = {}

    @property
    def entries(self) -> int:
        return len(self._marks)

    def add(self, parts: tuple[str, ...], *, is_folder: bool) -> None:
        """Add a name. A folder may be added again in the same spelling.

        Raises: InvalidArchive, ArchiveTooLarge (entries).
        """
        for depth in range(1, len(parts) + 1):
            key, spelling = _digests("/".join(parts[:depth]))
            # A folder's mark is its spelling. That of a file is a number which no other file has.
            mark = spelling if is_folder or depth < len(parts) else self.entries
            if self._marks.setdefault(key, mark) != mark:
                raise InvalidArchive(
                    "the archive has this name, or that of a folder in it, twice: perhaps in another case or "
                    "Unicode form, or for both a file and a folder; rename one of them.",
                    code="archive_member_duplicate",
                    member="/".join(parts),
                )
        self._limits.check_entries(self.entries)


@lru_cache(maxsize=128)  # the folders of one file are mostly those of the next, and folding is slow
def _digests(path: str) -> tuple[bytes, bytes]:
    """Of its folded form, and of its spelling."""
    key, spelling = (hashlib.blake2b(form.encode(), digest_size=16).digest() for form in (folded(path), path))
    return key, spelling


def folded(name: str) -> str:
    """The form in which equal names compare equal (Unicode, canonical caseless matching, D145)."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
