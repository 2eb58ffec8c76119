"""The figure of the confirmation shows the means, every base, and chance."""

import numpy as np
import pytest

from demo.figure import draw
from demo.winoground_sets import KINDS
from tests.demo.test_report import compared


def test_bars_are_means_and_dots_are_bases() -> None:
    (axis,) = draw([compared(gain=4)]).axes
    heights = [[bar.get_height() for bar in container] for container in axis.containers[::2]]
    assert heights == [pytest.approx([mean] * 4) for mean in (25, 32.5, 52.5, 32.5)]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["all", *KINDS]
    dots = [line for line in axis.lines if line.get_marker() == "o"]
    assert dots[1].get_ydata()[:4] == pytest.approx([25, 30, 35, 40])
    assert [line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":"] == [50]


def test_a_test_of_places_has_one_group_of_bars() -> None:
    first, second = draw([compared(gain=4), compared(gain=4, places=True)]).axes
    assert first.get_ylabel() == "GroupMatch, %"
    assert second.get_ylabel() == "probe of places, %"
    assert [tick.get_text() for tick in second.get_xticklabels()] == ["all"]
    assert np.array([bar.get_height() for bar in second.containers[0]]) == pytest.approx([55])
