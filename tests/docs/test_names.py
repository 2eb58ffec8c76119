"""What the README and the documents name is there: files, links, modules. test_commands.py looks at their commands.

The decisions are left out, because they may speak of what was.
"""

import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from tests.docs.commands import PAGES, ROOT, slugs

FOLDERS = ("app", "bench", "demo", "docker", "docs", "models", "sds_clip", "tests", "tools", "worker")

on_each = pytest.mark.parametrize("document", PAGES, ids=lambda file: str(file.relative_to(ROOT)))


@cache
def files() -> list[str]:
    return [f"/{file.relative_to(ROOT)}" for folder in FOLDERS for file in (ROOT / folder).rglob("*.*")]


def code(document: Path) -> str:
    """What stands in code blocks and between backticks, with continued lines joined."""
    text = document.read_text().replace("\\\n", " ")
    fenced, indented = (
        re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE),
        re.compile(r"(?m)^    .*$"),
    )
    prose = indented.sub("", fenced.sub("", text))
    spans = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]
    return "\n".join([*fenced.findall(text), *indented.findall(fenced.sub("", text)), *spans])


@on_each
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    assert [each for each in targets if ":" not in each and not (document.parent / each).exists()] == []


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_links_of_the_first_pages_lead_to_headings_that_are_there(name: str) -> None:
    """MkDocs looks at those of the docs."""
    links = re.findall(r"\]\(([\w/.-]+\.md)(?:#([\w-]+))?\)", (ROOT / name).read_text())
    assert links
    assert [(file, anchor) for file, anchor in links if anchor and anchor not in slugs(ROOT / file)] == []
    assert [file for file, _ in links if not (ROOT / file).is_file()] == []


@on_each
def test_sources_that_are_named_exist(document: Path) -> None:
    """By their path, or by the end of it where the folder is clear."""
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "", document.read_text())
    sources = set(re.findall(r"(?<![\w./-])[\w./-]+\.py\b", text))
    assert {each for each in sources if not any(file.endswith(f"/{each}") for file in files())} == set()
    folders = set(re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/(?:[\w-]+/)*(?![\w.*-])", text))
    assert {each for each in folders if not (ROOT / each).is_dir()} == set()


@on_each
def test_modules_that_are_run_exist(document: Path) -> None:
    modules = set(re.findall(r"\bpython -m ((?:bench|sds_clip\.demo|tools)[\w.]*)", code(document)))
    assert {each for each in modules if importlib.util.find_spec(each) is None} == set()
