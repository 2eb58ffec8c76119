"""The fenced blocks of a page of the docs, in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "demo" / "README.md",
    *sorted(file for file in DOCS.rglob("*.md") if file.parent.name != "decisions"),
]
"""All that tells a reader what to do. Decisions may speak of what was."""

_FENCE = re.compile(r"(?P<indent> *)```(?P<language>\w*)")
_TAB = re.compile(r'=== "(?P<name>.*)"')


@dataclass(frozen=True)
class Block:
    """A fenced block. `tab` is the name of the tab that it is in, if any."""

    language: str
    tab: str | None
    code: str


def blocks(page: Path) -> Iterator[Block]:
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    tab = None
    for line in lines:
        if opened := _TAB.fullmatch(line):
            tab = opened["name"]
        elif line and not line.startswith(" "):
            tab = None
        if fence := _FENCE.fullmatch(line):
            code = []
            for inner in lines:
                if inner.strip() == "```":
                    break
                code.append(inner)
            yield Block(fence["language"], tab, dedent("\n".join(code)) + "\n")
