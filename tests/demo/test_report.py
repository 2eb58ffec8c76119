"""The tables of the screening and of the confirmation, of outcomes that are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from sds_clip.demo.arms import placebo_of
from sds_clip.demo.compared import MEASURES, Compared
from sds_clip.demo.experiment import Outcome, Variant
from sds_clip.demo.measure import StudentScores
from sds_clip.demo.probe import POOLED, TEXT
from sds_clip.demo.report import (
    _verdict,
    confirmation_tables,
    screening_table,
    write_confirmation,
    write_screening,
)
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.models.evaluation.estimate import estimate

ITEMS = [kind for kind in KINDS for _ in range(20)]
ARMS = [
    Variant.of("clip", objective="clip"),
    Variant.of("sds", objective="sds-clip", control="clip"),
]
SHARE = {"teacher_gradient_share": 0.25, "target_own": 0.5}


def run(variant: str, right: int, *, seed: int = 0, places: int = 10) -> Outcome:
    """A run that has the first `right` items of each kind right, by group score and by GroupMatch, and all images.

    Of 20 scenes, it tells the first `places` shapes and two colours more.
    """
    text = [number < right for number in range(20)] * 3
    margins = [1.0 if each else -1.0 for each in text]
    measured = StudentScores(ITEMS, text, [True] * 60, 0.9, 0.71, margins)
    log = [{"step": step, **(SHARE if variant == "sds" else {})} for step in (10.0, 20.0)]
    probes = {POOLED: [first(places), first(places + 2), first(14)], TEXT: [first(16), first(18), first(20)]}
    scored = {"one": 400.0, variant: 100.0} if variant == "sds" else {}
    return Outcome(variant, "all", seed, "heldout", 450.0, {}, measured, log, probes, scored)


def first(count: int) -> list[bool]:
    return [number < count for number in range(20)]


BASE = run("base", 4)
OUTCOMES = [run("clip", 2), run("clip", 4, seed=1), run("sds", 12), run("sds", 14, seed=1)]
PAGE = "# Page\n\n<!-- exact -->\n<!-- /exact -->\n\n<!-- tags -->\nkept\n<!-- /tags -->\n"


def cells(text: str, row: str) -> list[list[str]]:
    """The cells of all rows of that name."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith(f"| {row} |")]
    return [[cell.strip() for cell in line] for line in lines]


def test_screening_has_a_row_an_arm_with_its_difference_probes_and_share() -> None:
    text = screening_table(OUTCOMES, BASE, ARMS)

    (base,), (clip,), (sds,), (chance,) = (cells(text, row) for row in ("base", "clip", "sds", "chance"))
    assert base[1:7] == ["20.0", "20.0", "20.0", "20.0", "", ""]
    assert base[8:] == ["20.0", "90.0", "71.0", "50.0 60.0 70.0", "80.0 90.0 100.0", "", ""]
    assert clip[1:7] == ["15.0", "15.0", "15.0", "15.0", "", ""]
    assert sds[1:5] == ["65.0"] * 4
    assert sds[5].startswith("+50.0 (+")
    assert sds[5].endswith(") over clip")
    assert sds[6] == ""
    assert sds[8:] == ["65.0", "90.0", "71.0", "50.0 60.0 70.0", "80.0 90.0 100.0", "0.25", "0.50"]
    assert chance[1:11] == ["50.0", "50.0", "50.0", "50.0", "", "", "0.00", "16.7", "0.8", "0.5"]
    assert "4 runs (seeds 0, 1), 30 minutes of one core, and 8 for the teacher's scores" in text


def test_an_objective_is_compared_with_its_placebo_too() -> None:
    placebo = placebo_of(ARMS[1])
    more = [run("sds-placebo", 2), run("sds-placebo", 4, seed=1)]
    text = screening_table([*OUTCOMES, *more], BASE, [*ARMS, placebo])

    (sds,), (by_placebo,) = cells(text, "sds"), cells(text, "sds-placebo")
    assert sds[6] == sds[5].removesuffix(" over clip")
    assert by_placebo[5:7] == ["+0.0 (+0.0 to +0.0) over clip", ""]


def test_the_gradient_ratio_leaves_out_the_mapper_s_warm_up() -> None:
    log = [{"step": 10.0, "teacher_gradient_share": 0.0}, {"step": 20.0, "teacher_gradient_share": 0.5}]
    warmed = [replace(each, log=log, options={"mapper_warmup_steps": 10}) for each in OUTCOMES[2:]]
    (sds,) = cells(screening_table([*OUTCOMES[:2], *warmed], BASE, ARMS), "sds")
    assert sds[-2] == "0.50"


def test_an_arm_without_every_seed_names_those_it_has_and_is_compared_on_them() -> None:
    text = screening_table(OUTCOMES[:3], BASE, ARMS)

    (sds,) = cells(text, "sds (seed 0)")
    assert sds[1] == "60.0"
    assert sds[5].startswith("+50.0 (+")  # over the 10.0 of clip's seed 0


def test_an_arm_whose_control_was_not_run_is_not_compared() -> None:
    assert cells(screening_table(OUTCOMES[2:], BASE, ARMS[1:]), "sds")[0][5] == ""


def test_settings_share_a_file_without_touching_each_other(tmp_path: Path) -> None:
    file = tmp_path / "screening.md"
    file.write_text(PAGE)
    for _ in range(2):
        write_screening("exact", "new", tmp_path)
    exact, tags = file.read_text().split("<!-- tags -->")
    assert exact.count("new") == 1
    assert tags == "\nkept\n<!-- /tags -->\n"


@pytest.mark.parametrize("text", ["", "<!-- exact -->", "<!-- /exact --><!-- exact -->", PAGE + PAGE])
def test_page_without_its_markers_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "screening.md"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"screening\.md needs a line"):
        write_screening("exact", "new", tmp_path)
    assert file.read_text() == text


def compared(*, gain: int, places: bool = False, placebo: int = 0) -> Compared:
    """Four bases with two seeds each; the objective has `gain` more items of each kind, and more scenes."""

    def arm(name: str, more: int) -> list[list[Outcome]]:
        return [
            [run(name, 5 + base + more, seed=seed, places=10 + base % 2 + more) for seed in (0, 1)]
            for base in range(4)
        ]

    base = [[run("base", 5)] for _ in range(4)]
    arms = {"base": base, "clip": arm("clip", 0), "sds": arm("sds", gain), "placebo": arm("placebo", placebo)}
    return Compared("exact", arms, objective="sds", control="clip", placebo="placebo", places=places)


def test_a_difference_that_all_bases_have_is_told_with_its_interval_over_the_items() -> None:
    text = confirmation_tables([compared(gain=12), compared(gain=0)])
    gained, none = cells(text, "exact: sds over clip")
    assert gained[1].startswith("+60.0 (+")
    assert gained[2] == "+60.0, +60.0, +60.0, +60.0"
    assert gained[-1] == "a gain; 7 points are shown"
    assert none[1:] == [
        "+0.0 (+0.0 to +0.0)",
        "+0.0, +0.0, +0.0, +0.0",
        "+0.0 to +0.0",
        "1.00",
        "1.00",
        "null",
    ]


def test_the_p_has_the_bases_degrees_of_freedom_even_where_only_the_items_differ() -> None:
    """Four items of each 20 are gained by every base."""
    found = compared(gain=4).difference("clip")
    items = compared(gain=4).differences("clip").mean(axis=(0, 1))
    t = ttest_1samp(items, 0).statistic
    assert found.p == pytest.approx(2 * student.sf(t, 3))


@pytest.mark.parametrize(
    ("values", "corrected", "verdict"),
    [
        ([0.10, 0.11, 0.10, 0.11], 0.001, "a gain; 7 points are shown"),
        ([0.06, 0.11, 0.10, 0.06], 0.001, "a gain; 7 points are not shown"),
        ([0.004, 0.003, 0.004, 0.003], 0.001, "a gain within 2 points; 7 points are not shown"),
        ([-0.004, -0.003, -0.004, -0.003], 0.001, "a loss within 2 points"),
        ([-0.10, -0.11, -0.10, -0.11], 0.001, "a loss"),
        ([0.001, -0.001, 0.002, 0.0], 0.5, "null"),
        ([0.03, -0.02, 0.05, 0.0], 0.5, "not decided"),
        ([0.018, 0.019, 0.021, 0.022], 0.02, "not decided"),
    ],
)
def test_a_verdict_follows_the_interval_and_the_corrected_p(
    values: list[float], corrected: float, verdict: str
) -> None:
    assert _verdict(estimate(np.array(values).reshape(4, 1, 1)), corrected, 0.07) == verdict


def test_the_objective_stands_beside_its_placebo_without_a_p() -> None:
    text = confirmation_tables([compared(gain=4, placebo=3)])
    (row,) = cells(text, "exact: sds over placebo")
    assert row[1].startswith("+5.0 (")
    assert len(row) == 4


def test_two_tests_double_the_smaller_p() -> None:
    uncertain = [
        [run("sds", 5 + base + more, seed=seed) for seed in (0, 1)] for base, more in enumerate((3, -1, 2, 0))
    ]
    one = compared(gain=0)
    one = two = replace(one, arms={**one.arms, "sds": uncertain})
    first, _ = cells(confirmation_tables([one, two]), "exact: sds over clip")
    assert 0.01 < float(first[4]) < 0.5
    assert float(first[5]) == pytest.approx(2 * float(first[4]), rel=0.06)  # both are rounded to two digits


def test_each_arm_stands_with_chance_beside_it() -> None:
    text = confirmation_tables([compared(gain=4)])
    clip, sds, chance = (cells(text, row)[0] for row in ("clip", "sds", "chance"))
    assert clip[1].startswith("32.5 (")  # the mean of 5, 6, 7 and 8 of 20
    assert sds[1].startswith("52.5 (")
    means = [cell.split(" ")[0] for cell in sds]
    assert means[1:5] == ["52.5"] * 4
    assert means[6:9] == ["52.5", "90.0", "71.0"]
    assert means[9:-1] == ["77.5", "72.5", "82.5", "70.0", "80.0", "90.0", "100.0"]
    assert (clip[-1], sds[-1]) == ("", "0.25")
    assert sds[-2] == "100.0 (100.0 to 100.0)"
    assert chance[1:] == ["50.0"] * 4 + ["0.00", "16.7", "0.8", "0.5"] + ["50.0"] * 7 + [""]


def test_secondary_measures_are_compared_with_control_placebo_and_base_of_each_base() -> None:
    found = compared(gain=4)
    lower = [
        [replace(one, measured=replace(one.measured, retrieval=0.9 - loss)) for one in runs]
        for runs, loss in zip(found.arms["sds"], (0.01, 0.02, 0.01, 0.02), strict=True)
    ]
    text = confirmation_tables([replace(found, arms={**found.arms, "sds": lower})])
    (retrieval,), (group,), (d_prime,) = (
        cells(text, f"exact: {measure} of sds") for measure in ("retrieval", "group score", "d'")
    )
    low, high = ttest_1samp([-1, -2, -1, -2], 0).confidence_interval()
    assert retrieval[1:] == [f"-1.5 ({low:+.1f} to {high:+.1f})"] * 3
    assert [cell.split(" ")[0] for cell in group[1:]] == ["+20.0", "+20.0", "+27.5"]
    ours, clip, base = (MEASURES[4].values(found.arms[name]).mean() for name in ("sds", "clip", "base"))
    assert [cell.split(" ")[0] for cell in d_prime[1:]] == [
        f"{ours - other:+.2f}" for other in (clip, clip, base)
    ]


def test_a_control_that_is_the_placebo_is_compared_once() -> None:
    found = compared(gain=4)
    (row,) = cells(confirmation_tables([replace(found, control="placebo")]), "exact: retrieval of sds")
    assert row[1] == "+0.0 (+0.0 to +0.0)"
    assert row[2] == ""


def test_a_share_s_interval_ends_at_all_and_what_is_not_defined_is_left_out() -> None:
    found = compared(gain=0)
    best = [[run("sds", 20, seed=0)], [run("sds", 20)], [run("sds", 20)], [run("sds", 12)]]
    text = confirmation_tables([replace(found, arms={**found.arms, "sds": best, "clip": best})])
    (sds,) = cells(text, "sds")
    assert sds[1].endswith("to 100.0)")
    assert sds[5] == ""  # all margins of a run are the same, so d' has no deviation to be divided by


def test_bindings_count_by_scene() -> None:
    """Of two choices a scene, the first ones are right."""
    (bindings,) = (each for each in MEASURES if each.name == "bindings, image")
    one = run("sds", 4)
    two_each = {**one.probes, POOLED: [*one.probes[POOLED][:2], [True, False] * 20]}
    values = bindings.values([[replace(one, probes=two_each)]])
    assert values.tolist() == [[[0.5] * 20]]


def test_the_probe_of_places_is_the_mean_of_shapes_and_colours_of_each_scene() -> None:
    found = compared(gain=1, places=True)
    clip = found.measure.values(found.arms["clip"])
    assert clip.shape == (4, 2, 20)
    assert clip[:, 0].mean(axis=1) == pytest.approx([0.55, 0.6, 0.55, 0.6])
    assert found.difference("clip").mean == pytest.approx(0.05)
    assert cells(confirmation_tables([found]), "exact: sds over clip")[0][1].startswith("+5.0 (")


def test_a_test_lacks_nothing_if_every_base_has_every_run_once() -> None:
    found = compared(gain=0)
    assert found.lacking((0, 1)) == []
    assert found.lacking((0, 1, 2)) == ["clip", "sds", "placebo"]
    twice = [[*found.arms["sds"][0], run("sds", 5)], *found.arms["sds"][1:]]
    assert replace(found, arms={**found.arms, "sds": twice}).lacking((0, 1)) == ["sds"]
    assert replace(found, arms={**found.arms, "base": [[]] * 4}).lacking((0, 1)) == ["base"]


def test_confirmation_is_written_between_its_markers_with_a_figure(tmp_path: Path) -> None:
    (tmp_path / "results.md").write_text("before\n<!-- results -->\nstale\n<!-- /results -->\nafter\n")
    write_confirmation([compared(gain=4), compared(gain=5, places=True)], tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "stale" not in text
    with Image.open(tmp_path / "results.png") as figure:
        assert len(np.unique(np.asarray(figure.convert("RGB")).reshape(-1, 3), axis=0)) > 4
