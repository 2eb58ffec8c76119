"""Names of archive entries: which may be written to disk, and which are duplicates."""

import hashlib
import re
import secrets
import unicodedata

from sds_clip.app.datasets.limits import ArchiveLimits
from sds_clip.app.errors import ArchiveTooLarge, DuplicateMember, UnsafeMember

MAX_PART_BYTES = 255  # for one part of a path: the usual limit of file systems
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_DRIVE = re.compile(r"[A-Za-z]:")


def decode_name(raw: bytes) -> str:
    """Decode a name.

    Raises: UnsafeMember unless it is UTF-8; any other encoding would be a guess.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise UnsafeMember(
            "the name is not UTF-8; pack the files again with names in UTF-8.",
            member=raw.decode("utf-8", "backslashreplace"),
        ) from None


def member_parts(name: str, limits: ArchiveLimits, *, is_folder: bool) -> tuple[str, ...]:
    """Split a name into its folders and last part. The archive's own top folder, `./`, has no parts.

    Raises: UnsafeMember for a name that leads outside the target on any system, and for one that is too long
    or too deep.
    """
    if name.startswith("/"):
        raise UnsafeMember(
            "the path is absolute; pack the files with paths relative to their folder.", member=name
        )
    if "\\" in name or _DRIVE.match(name):
        raise UnsafeMember("the path is a Windows path; pack the files with / between folders.", member=name)
    if not name or _CONTROL.search(name):
        raise UnsafeMember("the name is empty or contains control characters; rename the file.", member=name)
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if not is_folder and name.rpartition("/")[2] == ".":
        raise UnsafeMember("the entry is a file, but its name is that of a folder; rename it.", member=name)
    if ".." in parts:
        raise UnsafeMember(
            "the path contains `..`; pack the files with paths relative to their folder.", member=name
        )
    if len(name.encode()) > limits.max_name_bytes or any(
        len(part.encode()) > MAX_PART_BYTES for part in parts
    ):
        raise UnsafeMember(
            f"the path has more than {limits.max_name_bytes} bytes, or a part of it more than {MAX_PART_BYTES}; "
            "shorten the names.",
            member=name,
        )
    if len(parts) > limits.max_depth:
        raise UnsafeMember(
            f"the entry is more than {limits.max_depth} folders deep; use fewer levels of folders.",
            member=name,
        )
    return parts


def is_clutter(parts: tuple[str, ...]) -> bool:
    """Whether this is a file that macOS adds to archives, which is not part of the data."""
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


class NameBook:
    """The names seen so far, each stored as a 64-bit keyed hash, so that a million fit in memory.

    Names that differ only in case or Unicode normalisation count as equal, because some file systems would
    take them for one when the data set is copied. The secret key keeps a client from constructing collisions.
    """

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._key = secrets.token_bytes(16)
        self._files: set[int] = set()
        self._folders: dict[int, int] = {}
        self._known_folder: tuple[str, ...] = ()

    @property
    def entries(self) -> int:
        return len(self._files) + len(self._folders)

    def add(self, parts: tuple[str, ...], *, is_folder: bool) -> None:
        """Add a name. A folder may be added again in the same spelling.

        Raises: DuplicateMember, ArchiveTooLarge (entries).
        """
        folder = parts if is_folder else parts[:-1]
        if folder != self._known_folder:
            for depth in range(1, len(folder) + 1):
                self._add_folder(folder[:depth], "/".join(parts))
            self._known_folder = folder
        if not is_folder:
            self._add_file(parts)
        if self.entries > self._limits.max_entries:
            raise ArchiveTooLarge(
                f"The archive has more than {self._limits.max_entries} files and folders, which is the limit; "
                "send WebDataset shards instead."
            )

    def _add_folder(self, parts: tuple[str, ...], member: str) -> None:
        key = self._hash(folded("/".join(parts)))
        spelling = self._hash("/".join(parts))
        if key in self._files:
            raise DuplicateMember(
                "the archive has a file with the name of a folder in this path; rename one of them.",
                member=member,
            )
        if self._folders.setdefault(key, spelling) != spelling:
            raise DuplicateMember(
                "the names of two folders differ only in case or Unicode form; rename one of them.",
                member=member,
            )

    def _add_file(self, parts: tuple[str, ...]) -> None:
        name = "/".join(parts)
        key = self._hash(folded(name))
        if key in self._folders:
            raise DuplicateMember(
                "the archive also has a folder with this name; rename one of them.", member=name
            )
        if key in self._files:
            raise DuplicateMember(
                "the name appears twice, perhaps in another case or Unicode form; rename one of the files.",
                member=name,
            )
        self._files.add(key)

    def _hash(self, text: str) -> int:
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8, key=self._key).digest(), "little")


def folded(name: str) -> str:
    """The form in which equal names compare equal (Unicode, canonical caseless matching, D145)."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
