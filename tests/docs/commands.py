"""The pages of the docs: their headings, and their fenced blocks in order."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent

from markdown.extensions.toc import slugify

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
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


@cache
def headings(file: Path) -> list[str]:
    return [line.lstrip("#").strip() for line in file.read_text().splitlines() if line.startswith("#")]


def slugs(file: Path) -> set[str]:
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings(file)}


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
