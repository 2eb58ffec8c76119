"""The rows at the beginning of the benchmarks are figures of the runs below them."""

import re

from tests.docs.commands import DOCS


def test_the_first_rows_have_the_figures_of_the_runs() -> None:
    text = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    opening, runs = text.split("## Serving", 1)
    rows = [line for line in opening.splitlines() if line.startswith("| ")][2:]
    figures = [
        re.sub(r" (of bare|x bare)", "", each)
        for row in rows
        for each in re.findall(r"\d+\.\d+(?! of| x)", row)
    ]
    assert len(rows) == 7
    assert figures
    assert [each for each in figures if each not in runs] == []
