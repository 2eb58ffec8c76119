"""Tables of the comparison of objectives: the screening's and the confirmation's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

import numpy as np
from jaxtyping import Float

from demo.experiment import Outcome, Variant
from demo.figure import write_figure
from demo.probe import POOLED, PROBES, TEXT, accuracies
from demo.sets import RETRIEVAL_BATCH
from demo.statistics import Estimate, difference, estimate, holm, interval, right
from demo.winoground_sets import KINDS
from demo.world import COLOURS, SHAPES
from models.atomic import write_atomic
from models.evaluation.winoground import CHANCE, d_prime
from models.markdown import markdown_table

CLASSES = len(COLOURS) * len(SHAPES)  # the number of zero-shot classes
ALPHA = 0.01
"""A corrected p below this is significant."""
EQUIVALENCE = 0.02
"""A difference that is not significant is called a null if its 90 % interval lies within this much of 0."""
HOPED = {False: 0.07, True: 0.05}
"""The gain that is hoped for: in GroupMatch, and in the probe of places."""
NONE = ""
Runs = list[list[Outcome]]
"""By base, by seed."""


@dataclass(frozen=True)
class Compared:
    """The outcomes of one test of the confirmation, by arm; `base` are the base students themselves."""

    name: str
    arms: Mapping[str, Runs]
    objective: str
    control: str
    placebo: str
    places: bool = False
    """Whether the linear probe of places is compared, instead of GroupMatch."""

    def lacking(self, seeds: Sequence[int]) -> list[str]:
        """The arms that do not have one run of each seed for every base."""
        wanted = {name: [0] if name == "base" else sorted(seeds) for name in self.arms}
        return [
            name
            for name, by_base in self.arms.items()
            if any([run.seed for run in runs] != wanted[name] for runs in by_base)
        ]

    def values(self, arm: str, kind: str | None = None) -> Float[np.ndarray, "bases seeds items"]:
        """What is compared: each item's GroupMatch, or each scene's probe of places."""
        if self.places:
            return np.array([[places(run) for run in runs] for runs in self.arms[arm]], dtype=np.float64)
        return np.stack([right(runs, "group_match", kind) for runs in self.arms[arm]])

    def difference(self, other: str) -> Estimate:
        """The objective minus another arm."""
        return estimate(self.values(self.objective) - self.values(other))


def places(run: Outcome) -> list[float]:
    """Each scene's share of right places, of shapes and of colours, by the probes of the pooled image embedding."""
    shapes, colours, _ = run.probes[POOLED]
    return [(shape + colour) / 2 for shape, colour in zip(shapes, colours, strict=True)]


def write_screening(setting: str, text: str, folder: Path) -> None:
    """Write a setting's table, and what was chosen by it, into `screening.md` between the setting's markers.

    Raises:
        ValueError: screening.md does not have each marker once.
    """
    _write_between(setting, text, folder / "screening.md")


def screening_table(outcomes: Sequence[Outcome], base: Outcome, arms: Sequence[Variant]) -> str:
    """One row per arm: scores, the difference to its control, what must not get worse, probes, and the share."""
    header = [
        "GroupMatch", "all", *KINDS, "over its control", "d'", "group score", "retrieval", "zero-shot", "probes, image",
        "probes, text", "share", "target",
    ]  # fmt: skip
    runs = {arm.name: [run for run in outcomes if run.variant == arm.name] for arm in arms}
    rows = [_screened("base", [base], NONE)]
    for arm in arms:
        over = NONE
        if arm.control in runs:
            found = difference(runs[arm.name], runs[arm.control], "group_match")
            over = f"{_points(found.mean)} ({_points(found.low)} to {_points(found.high)}) over {arm.control}"
        rows.append(_screened(arm.name, runs[arm.name], over))
    chance = _percent(CHANCE["group_match"])
    rows.append(
        ["chance", *[chance] * (1 + len(KINDS)), NONE, "0.00", *_chances(), *["50 50 50"] * 2, NONE, NONE]
    )
    seeds = ", ".join(map(str, sorted({run.seed for run in outcomes})))
    minutes = sum(run.seconds for run in outcomes) / 60
    scored = {name: seconds for run in outcomes for name, seconds in run.scored.items()}
    made = (
        f"{len(outcomes)} runs (seeds {seeds}), {minutes:.0f} minutes of one core, and "
        f"{sum(scored.values()) / 60:.0f} for the teacher's scores that they share. "
        f"{base.measured.kinds.count(KINDS[0])} items of each kind of the part `{base.split}`. Shares are in percent, "
        "means over the seeds, and differences are in points with 95 % intervals over seeds and items. The probes read "
        "places of shapes, places of colours, and bindings. The last two columns are means over the run. The share is "
        "the gradient of the teacher's loss on the image features, divided by that of the other losses. The target is "
        "the probability that the choice to be learnt gives the own caption, or the likeliest if none is its own."
    )
    return f"{made}\n\n{markdown_table(header, rows)}"


def _screened(name: str, runs: Sequence[Outcome], over: str) -> list[str]:
    scores = [_percent(interval(runs, "group_match", kind).mean) for kind in (None, *KINDS)]
    probes = [_probes(runs, source) for source in (POOLED, TEXT)]
    logged = [
        gradient_share(runs),
        _logged(runs, lambda record: record.get("target_own", record.get("target_best"))),
    ]
    return [name, *scores, over, *_shares(runs), *probes, *logged]


def gradient_share(runs: Sequence[Outcome]) -> str:
    """The mean share of the teacher's gradient over the runs, if they have one."""
    return _logged(runs, lambda record: record.get("teacher_gradient_share"))


def _logged(runs: Sequence[Outcome], value_of: Callable[[Mapping[str, float]], float | None]) -> str:
    values = [value for run in runs for record in run.log if (value := value_of(record)) is not None]
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
    text = f"{confirmation_tables(found)}\n\n![The arms of the confirmation, by kind]({picture})"
    _write_between("results", text, folder / "results.md")
    write_figure(found, folder / picture)


def confirmation_tables(found: Sequence[Compared]) -> str:
    """The table of the tests, that of the placebos, and one of the arms of each test."""
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
    parts = [markdown_table(["test", *columns, "p", "by Holm", "verdict"], tests, text=(0, 6))]
    if placebos:
        parts.append(markdown_table(["over the placebo", *columns], placebos))
    return "\n\n".join([*parts, *(f"### {each.name}\n\n{_arms_table(each)}" for each in found)])


def _difference(compared: Compared, other: str) -> list[str]:
    wide, narrow = (compared.difference(other).interval(level) for level in (0.95, 0.9))
    by_base = (compared.values(compared.objective) - compared.values(other)).mean(axis=(1, 2))
    return [
        f"{_points(wide.mean)} ({_points(wide.low)} to {_points(wide.high)})",
        ", ".join(map(_points, by_base)),
        f"{_points(narrow.low)} to {_points(narrow.high)}",
    ]


def _verdict(found: Estimate, corrected: float, hoped: float) -> str:
    if corrected < ALPHA:
        shown = found.interval().low >= hoped
        return f"a difference; a gain of {100 * hoped:.0f} points is {'' if shown else 'not '}shown"
    narrow = found.interval(0.9)
    return "null" if max(-narrow.low, narrow.high) < EQUIVALENCE else "not decided"


def _arms_table(compared: Compared) -> str:
    """A row for each arm: means over bases, seeds and items, with 95 % intervals."""
    header = ["arm", "GroupMatch", *KINDS, "d'", "group score", "retrieval", "zero-shot"]
    header += [f"{probe}, {tower}" for tower in ("image", "text") for probe in PROBES]
    rows = [[name, *_cells(by_base)] for name, by_base in compared.arms.items()]
    chance = [_percent(CHANCE["group_match"])] * (1 + len(KINDS))
    return markdown_table(
        header, [*rows, ["chance", *chance, "0.00", *_chances(), *["50.0"] * 2 * len(PROBES)]]
    )


def _cells(by_base: Runs) -> list[str]:
    matched = [np.stack([right(runs, "group_match", kind) for runs in by_base]) for kind in (None, *KINDS)]
    runs = [
        (fmean(run.measured.group), run.measured.retrieval, run.measured.zero_shot) for run in chain(*by_base)
    ]
    shares = np.array(runs).reshape(len(by_base), -1, 1, 3)
    probes = [
        np.array([[run.probes[source][place] for run in runs] for runs in by_base], dtype=np.float64)
        for source in (POOLED, TEXT)
        for place in range(len(PROBES))
    ]
    d_primes = np.array([[[d_prime(run.measured.margins) or 0.0] for run in runs] for runs in by_base])
    found = estimate(d_primes).interval()
    return [
        *map(_estimated, matched),
        f"{found.mean:.2f} ({found.low:.2f} to {found.high:.2f})",
        *map(_estimated, [*(shares[..., place] for place in range(3)), *probes]),
    ]


def _shares(runs: Sequence[Outcome]) -> list[str]:
    """d', group score, retrieval and zero-shot: means over runs."""
    found = [value for run in runs if (value := d_prime(run.measured.margins)) is not None]
    return [
        f"{fmean(found):.2f}" if found else NONE,
        _percent(fmean(fmean(run.measured.group) for run in runs)),
        _percent(fmean(run.measured.retrieval for run in runs)),
        _percent(fmean(run.measured.zero_shot for run in runs)),
    ]


def _chances() -> list[str]:
    """Chance of the group score, of retrieval and of zero-shot."""
    return [_percent(share) for share in (CHANCE["group"], 1 / RETRIEVAL_BATCH, 1 / CLASSES)]


def _estimated(values: Float[np.ndarray, "bases seeds items"]) -> str:
    found = estimate(values).interval()
    return f"{_percent(found.mean)} ({_percent(found.low)} to {_percent(found.high)})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _points(share: float) -> str:
    return f"{100 * share:+z.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _write_between(name: str, generated: str, file: Path) -> None:
    """Replace the text between a marker and its end."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = file.read_text(encoding="utf-8")
    if old.count(opening) != 1 or old.count(closing) != 1 or old.index(opening) > old.index(closing):
        raise ValueError(
            f"{file} needs a line {opening} and below it a line {closing}, each exactly once; add them."
        )
    between = re.compile(re.escape(opening) + ".*" + re.escape(closing), re.DOTALL)
    write_atomic(file, between.sub(lambda _: f"{opening}\n\n{generated}\n\n{closing}", old))
