"""Tables of the comparison of objectives: the screening's and the confirmation's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean

import numpy as np

from sds_clip.demo.arms import placebo_of
from sds_clip.demo.compared import MEASURES, Compared, Measure, Runs, places
from sds_clip.demo.experiment import Outcome, Variant
from sds_clip.demo.figure import write_figure
from sds_clip.demo.probe import POOLED, TEXT, accuracies
from sds_clip.demo.statistics import difference, holm, interval
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.models.atomic import write_atomic
from sds_clip.models.evaluation.estimate import Estimate, estimate
from sds_clip.models.evaluation.winoground import CHANCE
from sds_clip.models.markdown import markdown_table

ALPHA = 0.01
"""A corrected p below this is significant."""
EQUIVALENCE = 0.02
"""A difference that is not significant is called a null if its 90 % interval lies within this much of 0."""
HOPED = {False: 0.07, True: 0.05}
"""The gain that is hoped for: in GroupMatch, and in the probe of places."""
SECONDARY = ("d'", "group score", "retrieval", "zero-shot")
"""Measures that decide nothing, whose differences are shown."""
NONE = ""


def write_screening(setting: str, text: str, folder: Path) -> None:
    """Write a setting's table, and what was chosen by it, into `screening.md` between the setting's markers.

    Raises:
        ValueError: screening.md does not have each marker once.
    """
    write_between(setting, text, folder / "screening.md")


def screening_table(outcomes: Sequence[Outcome], base: Outcome, arms: Sequence[Variant]) -> str:
    """One row per arm: scores, differences from its control and placebo, what must not get worse, probes, log.

    The row of an arm that was not run with every seed names those that it has.
    """
    header = [
        "GroupMatch", "all", *KINDS, "over its control", "over its placebo", "d'", "group score", "retrieval",
        "zero-shot", "probes, image", "probes, text", "gradient ratio", "target",
    ]  # fmt: skip
    runs = {arm.name: [run for run in outcomes if run.variant == arm.name] for arm in arms}
    all_seeds = _seeds(outcomes)
    rows = [_screened("base", [base], NONE, NONE)]
    for arm in arms:
        ours = runs[arm.name]
        name = arm.name if _seeds(ours) == all_seeds else f"{arm.name} (seed {_seeds(ours)})"
        control = _over(ours, runs.get(arm.control or ""))
        over_control = f"{control} over {arm.control}" if control else NONE
        rows.append(_screened(name, ours, over_control, _over(ours, runs.get(placebo_of(arm).name))))
    chance = _percent(CHANCE["group_match"])
    by_kind, probes = [chance] * (1 + len(KINDS)), ["50 50 50"] * 2
    secondary = [_value(each, each.chance) for each in MEASURES if each.name in SECONDARY]
    rows.append(["chance", *by_kind, NONE, NONE, *secondary, *probes, NONE, NONE])
    minutes = sum(run.seconds for run in outcomes) / 60
    scored = {name: seconds for run in outcomes for name, seconds in run.scored.items()}
    made = (
        f"{len(outcomes)} runs (seeds {all_seeds}), {minutes:.0f} minutes of one core, and "
        f"{sum(scored.values()) / 60:.0f} for the teacher's scores that they share. "
        f"{base.measured.kinds.count(KINDS[0])} items of each kind of the part `{base.split}`. Accuracies are in "
        "percent, means over the seeds, and differences are in points with 95 % intervals over seeds and items. The "
        "probes read places of shapes, places of colours, and bindings. The last two columns are means over the run; "
        "of the gradient ratio, without the steps in which the teacher's loss trains the mapper alone. The gradient "
        "ratio is the norm of the gradient of the teacher's loss on the image features, divided by that of the other "
        "losses. The target is the probability that the choice to be learnt gives the own caption, or the likeliest if "
        "none is its own."
    )
    return f"{made}\n\n{markdown_table(header, rows)}"


def _seeds(runs: Sequence[Outcome]) -> str:
    return ", ".join(map(str, sorted({run.seed for run in runs})))


def _over(runs: Sequence[Outcome], others: Sequence[Outcome] | None) -> str:
    """The difference in GroupMatch from the others of the same seeds, in points, if there are others."""
    if not others:
        return NONE
    seeds = {run.seed for run in runs}
    found = difference(runs, [run for run in others if run.seed in seeds], "group_match")
    return f"{_points(found.mean)} ({_points(found.low)} to {_points(found.high)})"


def _screened(name: str, runs: Sequence[Outcome], *over: str) -> list[str]:
    scores = [_percent(interval(runs, "group_match", kind).mean) for kind in (None, *KINDS)]
    probes = [_probes(runs, source) for source in (POOLED, TEXT)]
    logged = [
        gradient_share(runs),
        _logged(runs, lambda record: record.get("target_own", record.get("target_best"))),
    ]
    secondary = [
        _value(each, float(np.nanmean(each.of(runs)))) for each in MEASURES if each.name in SECONDARY
    ]
    return [name, *scores, *over, *secondary, *probes, *logged]


def _mean(measure: Measure, runs: Sequence[Outcome]) -> str:
    """The mean over the runs that have the measure."""
    values = measure.of(runs)
    return NONE if np.isnan(values).all() else _value(measure, float(np.nanmean(values)))


def gradient_share(runs: Sequence[Outcome]) -> str:
    """The mean share of the teacher's gradient over the runs, after the mapper's warm-up, if they have one."""
    return _logged(
        runs,
        lambda record: record.get("teacher_gradient_share"),
        after=max((run.options.get("mapper_warmup_steps", 0) for run in runs), default=0),
    )


def _logged(
    runs: Sequence[Outcome], value_of: Callable[[Mapping[str, float]], float | None], *, after: int = 0
) -> str:
    records = [record for run in runs for record in run.log if record["step"] > after]
    values = [value for record in records if (value := value_of(record)) is not None]
    return f"{fmean(values):.2f}" if values else NONE


def _probes(runs: Sequence[Outcome], source: str) -> str:
    found = zip(*(accuracies(run.probes[source]) for run in runs), strict=True)
    return " ".join(_percent(fmean(each)) for each in found)


def write_confirmation(found: Sequence[Compared], folder: Path) -> None:
    """Write the tables into `results.md` between its markers, and `results.png`; prose is kept.

    Raises:
        ValueError: results.md does not have each marker once.
    """
    picture = "results.png"
    text = f"{confirmation_tables(found)}\n\n![The arms of the confirmation, by measure]({picture})"
    write_between("results", text, folder / "results.md")
    write_figure(found, folder / picture)


def confirmation_tables(found: Sequence[Compared]) -> str:
    """What the tables are of, those of the tests, placebos and secondary measures, and one of each test's arms."""
    differences = [each.difference(each.control) for each in found]
    tests = [
        [
            f"{each.name}: {each.objective} over {each.control}",
            *_difference(each, each.control),
            _p(estimated.p),
            _p(corrected),
            _verdict(estimated, corrected, HOPED[each.places]),
        ]
        for each, estimated, corrected in zip(
            found, differences, holm([each.p for each in differences]), strict=True
        )
    ]
    placebos = [
        [f"{each.name}: {each.objective} over {each.placebo}", *_difference(each, each.placebo)]
        for each in found
        if each.placebo != each.control
    ]
    columns = ["difference, points (95 % interval)", "each base", "90 % interval"]
    parts = [
        _made_of(found[0]),
        markdown_table(["test", *columns, "p", "by Holm", "verdict"], tests, text=(0, 6)),
    ]
    if placebos:
        parts.append(markdown_table(["over the placebo", *columns], placebos))
    parts.append(_secondary_table(found))
    return "\n\n".join([*parts, *(f"### {each.name}\n\n{_arms_table(each)}" for each in found)])


def _made_of(compared: Compared) -> str:
    runs = compared.arms[compared.objective]
    one = runs[0][0]
    return (
        f"{len(runs)} base students, {len(runs[0])} seeds each. Measured on the part `{one.split}`: "
        f"{one.measured.kinds.count(KINDS[0])} items of each kind, and {len(places(one))} scenes for the probes. "
        "The tests compare GroupMatch over all kinds; the test `places` compares the probe of places (of shapes and of "
        "colours together) from the pooled image embedding. Accuracies are in percent, and differences in points. They "
        "are means over bases, seeds and items, with 95 % intervals by Student's t with the bases' degrees of freedom, "
        "not corrected for the number of tests. They hold for further bases, and for further items of the same "
        "combinations of shapes and colours. A run keeps one figure of d', retrieval and zero-shot, so their intervals "
        "count the bases alone. If an interval has no width, nothing varied, which does not make it certain. The "
        "gradient ratio is the norm of the gradient of the teacher's loss on the image features, divided by that of "
        "the other losses."
    )


def _difference(compared: Compared, other: str) -> list[str]:
    wide, narrow = (compared.difference(other).interval(level) for level in (0.95, 0.9))
    by_base = compared.differences(other).mean(axis=(1, 2))
    return [
        f"{_points(wide.mean)} ({_points(wide.low)} to {_points(wide.high)})",
        ", ".join(map(_points, by_base)),
        f"{_points(narrow.low)} to {_points(narrow.high)}",
    ]


def _verdict(found: Estimate, corrected: float, hoped: float) -> str:
    narrow = found.interval(0.9)
    is_small = max(-narrow.low, narrow.high) < EQUIVALENCE
    if corrected >= ALPHA:
        return "null" if is_small else "not decided"
    within = f" within {100 * EQUIVALENCE:.0f} points" if is_small else ""
    if found.mean < 0:
        return f"a loss{within}"
    shown = found.interval().low >= hoped
    return f"a gain{within}; {100 * hoped:.0f} points are {'' if shown else 'not '}shown"


def _secondary_table(found: Sequence[Compared]) -> str:
    """The objective's paired differences in SECONDARY from its control, its placebo and its base."""
    measures = [each for each in MEASURES if each.name in SECONDARY]
    rows = [
        [
            f"{each.name}: {measure.name} of {each.objective}",
            _over_arm(measure, each, each.control),
            NONE if each.placebo == each.control else _over_arm(measure, each, each.placebo),
            _over_arm(measure, each, "base"),
        ]
        for each in found
        for measure in measures
    ]
    return markdown_table(
        ["secondary measure", "over the control", "over the placebo", "over the base"], rows
    )


def _over_arm(measure: Measure, compared: Compared, other: str) -> str:
    """Points, or units of d'. A base itself has one run, so seeds are averaged first."""
    ours, theirs = (
        measure.values(compared.arms[each]).mean(axis=1, keepdims=True)
        for each in (compared.objective, other)
    )
    if np.isnan(ours - theirs).any():
        return NONE
    found = estimate(ours - theirs).interval()
    mean, low, high = (
        _points(value) if measure.percent else f"{value:+z.2f}"
        for value in (found.mean, found.low, found.high)
    )
    return f"{mean} ({low} to {high})"


def _arms_table(compared: Compared) -> str:
    """A row for each arm: means over bases, seeds and items, with 95 % intervals."""
    rows = [
        [name, *(_estimated(each, runs) for each in MEASURES), gradient_share([*chain(*runs)])]
        for name, runs in compared.arms.items()
    ]
    chances = [_value(each, each.chance) for each in MEASURES]
    header = ["arm", *(each.name for each in MEASURES), "gradient ratio"]
    return markdown_table(header, [*rows, ["chance", *chances, NONE]])


def _estimated(measure: Measure, runs: Runs) -> str:
    values = measure.values(runs)
    if np.isnan(values).any():
        return NONE
    found = estimate(values).interval()
    low, high = np.clip((found.low, found.high), 0, 1) if measure.percent else (found.low, found.high)
    return f"{_value(measure, found.mean)} ({_value(measure, low)} to {_value(measure, high)})"


def _value(measure: Measure, value: float) -> str:
    return _percent(value) if measure.percent else f"{value:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+z.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def write_between(name: str, generated: str, file: Path) -> None:
    """Replace the text between a marker and its end."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = file.read_text(encoding="utf-8")
    if old.count(opening) != 1 or old.count(closing) != 1 or old.index(opening) > old.index(closing):
        raise ValueError(
            f"{file} needs a line {opening} and below it a line {closing}, each exactly once; add them."
        )
    between = re.compile(re.escape(opening) + ".*" + re.escape(closing), re.DOTALL)
    write_atomic(file, between.sub(lambda _: f"{opening}\n\n{generated}\n\n{closing}", old))
