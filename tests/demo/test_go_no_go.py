"""The go/no-go of L_SDS, of outcomes that are known."""

import pytest

from sds_clip.demo.go_no_go import page
from tests.demo.test_report import cells, run


@pytest.mark.parametrize(("gained", "verdict"), [(1, "Go: `sds-3`"), (0, "No go: `sds-1`")])
def test_it_is_a_go_if_the_probe_rises_five_points_over_the_placebo(gained: int, verdict: str) -> None:
    outcomes = [
        run("sds-1", 5, places=11), run("sds-1-placebo", 5, places=11),
        run("sds-3", 5, places=11 + gained), run("sds-3-placebo", 5, places=11),
    ]  # fmt: skip
    text = page(run("base", 5, places=10), outcomes)
    assert text.startswith("Before: 55.0 %")
    assert cells(text, "sds-3")[0][2:] == [f"{60 + 5 * gained:.1f}", "60.0", f"+{5 * gained}.0"]
    assert verdict in text
