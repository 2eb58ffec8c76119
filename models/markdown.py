"""Tables in Markdown."""

from collections.abc import Collection, Iterable, Sequence


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, text: Collection[int] | None = (0,)
) -> str:
    """Return a table. Its `text` columns (None: all) are left-aligned, and the others, which hold numbers, right."""
    rule = ["---" if text is None or column in text else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in (header, rule, *rows))


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
