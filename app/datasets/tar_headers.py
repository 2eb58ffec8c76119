"""The 512-byte headers of a tar archive, and the extended ones, as POSIX.1-2017 (pax) and GNU tar write them."""

import re
from dataclasses import dataclass

from app.datasets.errors import ArchiveDamaged, UnsafeMember

BLOCK = 512
MAX_EXTENDED_BYTES = 2**20
"""Of a pax header or a GNU long name: these are read into memory."""

_USTAR = b"ustar\0"
_CHECKSUM = slice(148, 156)
_OCTAL = re.compile(rb"[ \0]*([0-7]*)[ \0]*")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_DAMAGED = "The tar archive is damaged, or no tar archive from some place on; pack it again."


@dataclass(frozen=True)
class Header:
    """What a header block says. `type` is its type flag; old archives' NUL is given as "0"."""

    name: bytes
    size_bytes: int
    type: str


@dataclass
class Extended:
    """What the extended headers before an entry say of it."""

    pax_name: bytes | None = None
    gnu_name: bytes | None = None
    size_bytes: int | None = None
    sparse: bool = False


def is_header(block: bytes) -> bool:
    """Is this a tar header, by its checksum? Some old programs summed signed bytes."""
    if len(block) < BLOCK:
        return False
    stated = _octal(block[_CHECKSUM])
    summed = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    return stated == sum(summed) or stated == sum(summed) - 256 * sum(byte > 127 for byte in summed)


def read_header(block: bytes) -> Header:
    """Read a header block.

    Raises: ArchiveDamaged.
    """
    if not is_header(block):
        raise ArchiveDamaged(_DAMAGED)
    name = _text(block[:100])
    if block[257:263] == _USTAR:  # GNU's own magic, which differs, has times where ustar has the prefix
        prefix = _text(block[345:500])
        name = prefix + b"/" + name if prefix else name
    size_bytes = _number(block[124:136])
    if size_bytes is None:
        raise ArchiveDamaged("the size is not a number; pack the archive again.", member=_readable(name))
    return Header(name, size_bytes, chr(block[156] or ord("0")))


def read_pax(data: bytes, extended: Extended) -> None:
    """Read pax records, "LENGTH KEY=VALUE\\n", of which only those that say where an entry's bytes go matter.

    Raises: ArchiveDamaged.
    """
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        length = data[position : max(space, position)]
        if not _DECIMAL.fullmatch(length):
            raise ArchiveDamaged(_DAMAGED)
        end = position + int(length)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end <= space + 1 or data[end - 1 : end] != b"\n" or not equals:
            raise ArchiveDamaged(_DAMAGED)
        _take(key, value, extended)
        position = end


def _take(key: bytes, value: bytes, extended: Extended) -> None:
    if key == b"path":
        extended.pax_name = value or None
    elif key == b"size":
        if value and not _DECIMAL.fullmatch(value):
            raise ArchiveDamaged(_DAMAGED)
        extended.size_bytes = int(value) if value else None
    elif key.startswith((b"GNU.sparse.", b"SCHILY.realsize", b"SUN.holesdata")):
        extended.sparse = True


def resolve(header: Header, extended: Extended) -> Header:
    """An entry's header with what the extended headers before it say.

    Raises: UnsafeMember (a sparse file), ArchiveDamaged (two long names).
    """
    names = {name for name in (extended.pax_name, extended.gnu_name) if name is not None}
    if len(names) > 1:
        raise ArchiveDamaged("has two names; pack the archive again.", member=_readable(header.name))
    name = names.pop() if names else header.name
    if extended.sparse or header.type == "S":
        raise UnsafeMember("is a sparse file; pack the archive without --sparse.", member=_readable(name))
    size_bytes = header.size_bytes if extended.size_bytes is None else extended.size_bytes
    return Header(name, size_bytes, header.type)


def long_name(data: bytes) -> bytes:
    """The name in a GNU long name's block."""
    return _text(data)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _readable(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _number(field: bytes) -> int | None:
    """Octal, or GNU's binary numbers for what is too large for that; None where it is neither."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int | None:
    digits = _OCTAL.fullmatch(field)
    return int(digits[1] or b"0", 8) if digits else None
