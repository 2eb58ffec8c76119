"""Plain aligned tables: numbers to the right, text to the left, wide characters counted as two."""

import unicodedata
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, decimals: int = 4) -> str:
    """The rows as aligned lines under the header. Floats get so many decimals, None is an empty cell."""
    right = [
        any(isinstance(row[column], int | float) for row in rows)
        and all(row[column] is None or isinstance(row[column], int | float) for row in rows)
        for column in range(len(header))
    ]
    lines = [
        [printable(name) for name in header],
        *([_cell(value, decimals) for value in row] for row in rows),
    ]
    widths = [max(width(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            _pad(cell, widths[column], to_right=right[column]) for column, cell in enumerate(line)
        ).rstrip()
        for line in lines
    )


def printable(text: str) -> str:
    """The text with every character that could move the cursor or not be encoded replaced."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_lines(text: str) -> str:
    """The same, line by line."""
    return "\n".join(printable(line.rstrip()) for line in text.split("\n"))


def width(text: str) -> int:
    """Columns that the text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _cell(value: object, decimals: int) -> str:
    if value is None:
        return ""
    return f"{value:.{decimals}f}" if isinstance(value, float) else printable(str(value))


def _pad(cell: str, columns: int, *, to_right: bool) -> str:
    space = " " * (columns - width(cell))
    return space + cell if to_right else cell + space
