"""The figure of the confirmation shows the means, every base, and chance."""

import pytest
from matplotlib.axes import Axes

from sds_clip.demo.figure import draw
from sds_clip.demo.winoground_sets import KINDS
from tests.demo.test_report import compared


def test_bars_are_means_and_dots_are_bases() -> None:
    axis, d_prime, group, retrieval, zero_shot, places = draw([compared(gain=4)]).axes
    heights = [[bar.get_height() for bar in container] for container in axis.containers[::2]]
    assert heights == [pytest.approx([mean] * 4) for mean in (25, 32.5, 52.5, 32.5)]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["all", *KINDS]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert dots[1].get_ydata()[:4] == pytest.approx([25, 30, 35, 40])
    assert chances(axis) == [50]
    assert chances(d_prime) == [0]
    assert d_prime.get_title() == "d'"
    assert [bars[0].get_height() for bars in group.containers[::2]] == pytest.approx([25, 32.5, 52.5, 32.5])
    assert [bars[0].get_height() for bars in retrieval.containers[::2]] == pytest.approx([90] * 4)
    assert [bars[0].get_height() for bars in zero_shot.containers[::2]] == pytest.approx([71] * 4)
    assert [bars[0].get_height() for bars in places.containers[::2]] == pytest.approx([55, 57.5, 77.5, 57.5])


def test_each_test_has_a_row_of_panels_with_its_name() -> None:
    figure = draw([compared(gain=4), compared(gain=4, places=True)])
    assert [row.get_suptitle() for row in figure.subfigs] == ["exact", "exact"]
    assert [len(row.axes) for row in figure.subfigs] == [6, 6]


def chances(axis: Axes) -> list[float]:
    return [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"]
