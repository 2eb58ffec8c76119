"""Plain aligned tables, messages for people, and text that is safe to print on a terminal."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

_NO_WRAP = 1_000_000  # columns: lines are never broken, since grep and awk read tables too


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, decimals: int = 4) -> str:
    """Format rows under a header, numbers right-aligned, floats with `decimals`. None is an empty cell."""
    from rich.console import Console
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for column, name in enumerate(header):
        values = [row[column] for row in rows if row[column] is not None]
        numbers = bool(values) and all(isinstance(value, int | float) for value in values)
        made.add_column(_cell(name, decimals), justify="right" if numbers else "left", no_wrap=True)
    for row in rows:
        made.add_row(*(_cell(value, decimals) for value in row))
    console = Console(width=_NO_WRAP, color_system=None, markup=False, emoji=False, highlight=False)
    with console.capture() as captured:
        console.print(made)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def printable(text: str) -> str:
    """Replace characters that could move the cursor or cannot be encoded."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def printable_lines(text: str) -> str:
    """Like `printable`, but keeps line breaks."""
    return "\n".join(printable(line.rstrip()) for line in text.split("\n"))


def _cell(value: object, decimals: int) -> str:
    if value is None:
        return ""
    return f"{value:.{decimals}f}" if isinstance(value, float) else printable(str(value))


def say(message: str) -> None:
    """Print a message for people on stderr, so that stdout holds results only."""
    print(f"sds-clip: {printable(message)}", file=sys.stderr)


def say_written(folder: Path) -> None:
    """Say that a folder of weights was written, and how to serve it."""
    reference = shlex.quote(f"local-dir:{folder}")
    size = sum(file.stat().st_size for file in folder.iterdir())
    say(f"Wrote {folder} ({size_text(size)}). Serve it: sds-clip serve --model {reference}")


def size_text(size_bytes: float) -> str:
    """A size in the largest binary unit that fits, such as 256 KiB."""
    units = iter(("bytes", "KiB", "MiB", "GiB"))
    unit = next(units)
    while size_bytes >= 1023.5 and (larger := next(units, None)):
        size_bytes, unit = size_bytes / 1024, larger
    return f"{size_bytes:.0f} {unit}"
