"""Plain aligned tables, and text that is safe to print on a terminal."""

from collections.abc import Sequence

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
