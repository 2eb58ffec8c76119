"""Plain aligned tables, messages for people, and text that is safe to print on a terminal."""

import shlex
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path


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
    shown = (each for each in text if unicodedata.category(each) not in ("Mn", "Me", "Cf"))
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in shown)


def tell(message: str) -> None:
    """Print a result for people on stdout."""
    print(printable(message))


def say(message: str) -> None:
    """Print a message for people on stderr, so that stdout holds results only."""
    print(f"sds-clip: {printable(message)}", file=sys.stderr)


def say_written(folder: Path, *, served: bool = True) -> None:
    """Say that a folder of weights was written, and how to serve it, or to load it in another program."""
    reference = shlex.quote(f"local-dir:{folder}")
    size = sum(file.stat().st_size for file in folder.iterdir())
    use = f"Serve it: sds-clip serve --model {reference}" if served else "Its README.md says how to load it."
    say(f"Wrote {folder} ({size_text(size)}). {use}")


def size_text(size_bytes: float) -> str:
    """A size in the largest binary unit that fits, such as 256 KiB."""
    units = iter(("bytes", "KiB", "MiB", "GiB"))
    unit = next(units)
    while size_bytes >= 1023.5 and (larger := next(units, None)):
        size_bytes, unit = size_bytes / 1024, larger
    return f"{size_bytes:.0f} {unit}"
