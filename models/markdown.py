"""Tables in Markdown, and other people's texts in it."""

import re
from collections.abc import Collection, Iterable, Sequence

_ENDS_CODE = re.compile(
    r"[`|\\]"
)  # the last two in tables, where readers differ about a backslash before a pipe


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, text: Collection[int] | None = (0,)
) -> str:
    """Return a table. Its `text` columns (None: all) are left-aligned, and the others, which hold numbers, right."""
    rule = ["---" if text is None or column in text else "---:" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in (header, rule, *rows))


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def code(text: object) -> str:
    """Return someone else's text as code, in which nothing is markup, a link or HTML, in tables too.

    It becomes one line, and characters that cannot be printed are replaced.
    """
    line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(str(text).split()))
    if not _ENDS_CODE.search(line):
        return f"`{line}`" if line else ""
    return f"<code>{''.join(c if c.isalnum() or c == ' ' else f'&#{ord(c)};' for c in line)}</code>"
