"""Plain aligned tables, and text that is safe to print on a terminal."""

import unicodedata
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, decimals: int = 4) -> str:
    """Format rows under a header, numbers right-aligned, floats with `decimals`. None is an empty cell.

    Lines are never wrapped, since grep and awk read tables too.
    """
    columns = [_column(values, decimals) for values in zip(header, *rows, strict=True)]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*columns, strict=True))


def printable(text: str) -> str:
    """Replace characters that could move the cursor or cannot be encoded."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_lines(text: str) -> str:
    """Like `printable`, but keeps line breaks."""
    return "\n".join(printable(line.rstrip()) for line in text.split("\n"))


def _column(values: Sequence[object], decimals: int) -> list[str]:
    """The cells of a column below its name, padded to the widest."""
    cells = [_cell(value, decimals) for value in values]
    widest = max(map(_width, cells))
    padded = [(cell, " " * (widest - _width(cell))) for cell in cells]
    present = [value for value in values[1:] if value is not None]
    numbers = bool(present) and all(isinstance(value, int | float) for value in present)
    return [padding + cell if numbers else cell + padding for cell, padding in padded]


def _cell(value: object, decimals: int) -> str:
    if value is None:
        return ""
    return f"{value:.{decimals}f}" if isinstance(value, float) else printable(str(value))


def _width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(_width_of(character) for character in text)


def _width_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
