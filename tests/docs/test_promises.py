"""docs/promises.md names tests that exist and run as it says, and headings under which its promises are made."""

import ast
import re
from functools import cache

from tests.docs.commands import DOCS, ROOT, headings, slugs

PAGE = (DOCS / "promises.md").read_text()
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`(?: \((long|containers)\))?", PAGE)
HEADINGS = re.findall(r"\]\(([\w/.-]+\.md)(?:#([\w-]+))?\)", PAGE)
OF_THE_README = re.findall(r"\bREADME: ([^,|]+?)(?:,| \|)", PAGE)
RUN_BY = {"long": "long", "compose": "containers"}
ROWS = re.findall(r"(?m)^\| (?!Promise |---)(.+?) \| (.+?) \| (.+?) \|$", PAGE)


@cache
def functions(file: str) -> dict[str, str]:
    """The tests of a file, each with how it is run."""
    tree = ast.parse((ROOT / file).read_text())
    of_all = [
        mark
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
        for mark in (node.value.elts if isinstance(node.value, ast.List) else [node.value])
    ]
    return {
        node.name: how({ast.unparse(mark) for mark in [*of_all, *node.decorator_list]})
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def how(marks: set[str]) -> str:
    """Marks of single cases (`pytest.param`) do not count."""
    return next((name for marker, name in RUN_BY.items() if f"pytest.mark.{marker}" in marks), "")


def test_every_promise_says_where_it_is_made_and_what_proves_it() -> None:
    assert len(ROWS) > 50
    for promise, said_in, tests in ROWS:
        assert promise.endswith("."), promise
        assert "README: " in said_in or ".md" in said_in, promise
        assert "::test_" in tests, promise


def test_named_tests_exist_and_run_as_it_says() -> None:
    assert not re.findall(r"\) \((?:long|containers)\)", PAGE)
    wrong = [f"{file}::{name}" for file, name, run in TESTS if functions(file).get(name) != run]
    assert wrong == []


def test_named_headings_exist() -> None:
    missing = {(file, anchor) for file, anchor in HEADINGS if anchor and anchor not in slugs(DOCS / file)} | {
        (file, anchor) for file, anchor in HEADINGS if not (DOCS / file).is_file()
    }
    assert missing == set()
    assert set(OF_THE_README) - set(headings(ROOT / "README.md")) == set()
    assert OF_THE_README
