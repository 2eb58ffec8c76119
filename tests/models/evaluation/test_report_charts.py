import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.report import render_report
from sds_clip.models.evaluation.report.charts import BINS, bin_counts, bin_edges
from sds_clip.models.evaluation.report.words import (
    items,
    p_value,
    percent,
    points,
    points_interval,
    shortened,
)
from sds_clip.models.evaluation.results import ItemOutcome, Metric, Results

SPACE = "\u00a0"


def run(margins: Sequence[float], low: float = 0.0, high: float = 1.0) -> Results:
    """A run of a benchmark with one outcome."""
    outcomes = tuple(
        ItemOutcome(str(number), {"right": margin > 0}, {"right": margin})
        for number, margin in enumerate(margins)
    )
    share = sum(margin > 0 for margin in margins) / len(margins)
    metric = Metric(share, low, high, len(margins))
    return Results("benchmark", "share", "right", {"share": metric}, {}, outcomes)


def section(page: str, title: str) -> str:
    return page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


def attributes(drawing: str, element: str, name: str) -> list[dict[str, str]]:
    """The attributes of every element of a class."""
    found = [
        dict(re.findall(r'([\w-]+)="([^"]*)"', tag)) for tag in re.findall(rf"<{element} [^>]*>", drawing)
    ]
    return [one for one in found if one.get("class") == name]


def test_bar_is_as_long_as_its_share_and_its_interval_as_wide() -> None:
    drawing = section(render_report(run([1.0, -1.0, -1.0, -1.0], 0.2, 0.325)), "Scores")

    assert [bar["width"] for bar in attributes(drawing, "rect", "model")] == ["25.00%"]
    reach, *ends = attributes(drawing, "line", "whisker")
    assert (reach["x1"], reach["x2"]) == ("20.00%", "32.50%")
    assert [(end["x1"], end["x2"]) for end in ends] == [("20.00%", "20.00%"), ("32.50%", "32.50%")]


def test_baseline_stands_over_the_model() -> None:
    before, after = run([1.0, 1.0, -1.0, -1.0]), run([1.0, 1.0, 1.0, -1.0])
    drawing = section(render_report(after, compare(before, after), before), "What changed")
    (one,), (other,) = attributes(drawing, "rect", "baseline"), attributes(drawing, "rect", "model")

    assert (one["width"], other["width"]) == ("50.00%", "75.00%")
    assert float(one["y"]) + float(one["height"]) < float(other["y"])


def test_difference_of_zero_is_in_the_middle_of_its_axis() -> None:
    before, after = run([1.0, -1.0, 1.0, -1.0]), run([-1.0, 1.0, 1.0, -1.0])
    comparison = compare(before, after)
    drawing = section(render_report(after, comparison, before), "What changed")

    assert [dot["cx"] for dot in attributes(drawing, "circle", "dot")] == ["50.00%"]
    # The axis is 1.05 times as wide as the interval's farther end.
    one = comparison.headline
    limit = 1.05 * max(-one.low, one.high)
    ends = tuple(f"{100 * (end + limit) / (2 * limit):.2f}%" for end in (one.low, one.high))
    assert [(line["x1"], line["x2"]) for line in attributes(drawing, "line", "whisker")] == [ends]


@pytest.mark.parametrize(
    "values",
    [[0.0], [0.3], [-0.3], [-0.1, 0.3], [1e-12, -1.0], [0.1, 0.2, 0.3], [-5e4, -4e4], [-0.7, 0.1 + 0.2]],
)
def test_bins_are_equal_cover_all_values_and_meet_at_zero(values: Sequence[float]) -> None:
    edges = bin_edges(min(values), max(values))

    assert 0.0 in edges
    assert edges[0] < 0 < edges[-1]
    assert len(edges) - 1 <= BINS + 2
    assert [high - low for low, high in pairwise(edges)] == pytest.approx(
        [edges[1] - edges[0]] * (len(edges) - 1)
    )
    assert sum(bin_counts(values, edges)) == len(values)


def test_few_far_values_do_not_squeeze_the_others() -> None:
    values = [-50.0, *(0.01 * k for k in range(-99, 100)), 70.0]

    drawing = section(render_report(run(values)), "Score margins")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", drawing)
    (tallest,) = re.findall(r"The tallest bar has (\d+)", drawing)

    assert [text[:4] for text in texts[1:]] == ["\u2264 \u22121", "\u2265 +0"]
    assert int(tallest) < 12
    assert sum(float(bar["height"]) for bar in attributes(drawing, "rect", "model")) == pytest.approx(
        150 * len(values) / int(tallest), abs=1
    )


def test_tie_is_counted_as_wrong() -> None:
    assert bin_counts([-1.0, 0.0, 0.0, 1e-9, 1.0], [-1.0, 0.0, 1.0]) == [3, 2]


def test_bars_are_as_high_as_their_counts_and_those_of_two_models_stand_beside_each_other() -> None:
    before, after = run([-1.0, -1.0, -1.0, 1.0]), run([1.0, 1.0, 1.0, 1.0])
    drawing = section(render_report(after, compare(before, after), before), "Score margins")
    bars = {name: attributes(drawing, "rect", name) for name in ("baseline", "model")}

    assert "The tallest bar has 4" in drawing
    heights = {name: [float(bar["height"]) for bar in of] for name, of in bars.items()}
    assert heights == {"baseline": [112.5, 37.5], "model": [150]}

    def ends(bar: dict[str, str]) -> tuple[float, float]:
        left, width = float(bar["x"].rstrip("%")), float(bar["width"].rstrip("%"))
        return left, left + width

    assert ends(bars["baseline"][1])[1] <= ends(bars["model"][0])[0] + 0.01
    assert ends(bars["model"][0])[1] <= 100


def test_numbers_are_printed_as_they_are_read() -> None:
    assert percent(0.0875) == f"8.8{SPACE}%"
    assert (points(0.0321), points(-0.0321), points(0.0), points(-0.0001)) == (
        "+3.2",
        "\u22123.2",
        "0.0",
        "0.0",
    )
    assert points_interval(-0.01, 0.052) == "\u22121.0 to +5.2"
    assert [p_value(p).replace(SPACE, " ") for p in (1.0, 0.2345, 0.0234, 0.00123, 0.00001)] == [
        "p = 1.00", "p = 0.23", "p = 0.023", "p = 0.0012", "p < 0.0001",
    ]  # fmt: skip
    assert (items(1), items(2)) == (f"1{SPACE}item", f"2{SPACE}items")
    assert (shortened("abcd", 4), shortened("abcde", 4)) == ("abcd", "abc\u2026")
