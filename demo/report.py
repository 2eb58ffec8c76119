"""Tables of the comparison of objectives: the screening's and the confirmation's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from jaxtyping import Float

from demo.experiment import Outcome, Variant
from demo.figure import write_figure
from demo.probe import POOLED, PROBES, TEXT
from demo.sets import RETRIEVAL_BATCH
from demo.statistics import Estimate, difference, estimate, holm, interval, right
from demo.winoground_sets import KINDS
from demo.world import COLOURS, SHAPES
from models.atomic import write_atomic
from models.evaluation.winoground import CHANCE, d_prime
from models.markdown import markdown_table

CLASSES = len(COLOURS) * len(SHAPES)  # the number of zero-shot classes
EQUIVALENCE = 0.02
"""A difference is called a null if its 90 % interval lies within this much of 0."""
PLACES = PROBES[:2]
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
    places: bool = False
    """Whether the linear probe of places is compared, instead of GroupMatch."""

    @property
    def complete(self) -> bool:
        seeds = {len(runs) for name, by_base in self.arms.items() if name != "base" for runs in by_base}
        return len(seeds) == 1 and min(seeds) > 0 and all(self.arms["base"])

    def values(self, arm: str, kind: str | None = None) -> Float[np.ndarray, "bases seeds items"]:
        """What is compared: each item's GroupMatch, or each run's probe of places."""
        if self.places:
            return np.array([[[places(run)] for run in runs] for runs in self.arms[arm]])
        return np.stack([right(runs, "group_match", kind) for runs in self.arms[arm]])

    def difference(self) -> Estimate:
        """The objective minus its control."""
        return estimate(self.values(self.objective) - self.values(self.control))


def places(run: Outcome) -> float:
    """The accuracy of the probes of places, of shapes and of colours together, from the pooled image embedding."""
    return fmean(run.probes[POOLED][: len(PLACES)])


def write_screening(
    setting: str, outcomes: Sequence[Outcome], base: Outcome, arms: Sequence[Variant], folder: Path, *, scoring_s: float
) -> None:  # fmt: skip
    """Write the table of a setting's arms into `screening.md`, between the setting's markers.

    Raises:
        ValueError: screening.md does not have each marker once.
    """
    _write_between(
        setting, screening_table(outcomes, base, arms, scoring_s=scoring_s), folder / "screening.md"
    )


def screening_table(
    outcomes: Sequence[Outcome], base: Outcome, arms: Sequence[Variant], *, scoring_s: float
) -> str:
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
    made = (
        f"{len(outcomes)} runs (seeds {seeds}), {minutes:.0f} minutes of one core, and {scoring_s / 60:.0f} for the "
        f"teacher's scores that they share. {base.measured.kinds.count(KINDS[0])} items of each kind of the part "
        f"`{base.split}`. Figures are in percent, means over the seeds, and differences are in points with 95 % "
        "intervals over seeds and items. The probes read places of shapes, places of colours, and bindings. The share "
        "is the gradient of the teacher's loss on the image features, divided by that of the other losses. The target "
        "is the teacher's mean probability of the own caption, or of the most probable one if none is its own."
    )
    return f"{made}\n\n{markdown_table(header, rows)}"


def _screened(name: str, runs: Sequence[Outcome], over: str) -> list[str]:
    scores = [_percent(interval(runs, "group_match", kind).mean) for kind in (None, *KINDS)]
    probes = [_probes(runs, source) for source in (POOLED, TEXT)]
    logged = [
        _logged(runs, lambda record: record.get("teacher_gradient_share")),
        _logged(runs, lambda record: record.get("target_own", record.get("target_best"))),
    ]
    return [name, *scores, over, *_shares([runs]), *probes, *logged]


def _logged(runs: Sequence[Outcome], value_of: Callable[[Mapping[str, float]], float | None]) -> str:
    values = [value for run in runs for record in run.log if (value := value_of(record)) is not None]
    return f"{fmean(values):.2f}" if values else NONE


def _probes(runs: Sequence[Outcome], source: str) -> str:
    return " ".join(_percent(fmean(each)) for each in zip(*(run.probes[source] for run in runs), strict=True))


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
    """The table of the tests, and one of the arms of each test."""
    header = [
        "test",
        "difference, points (95 % interval)",
        "each base",
        "p",
        "by Holm",
        "90 % interval",
        "null",
    ]
    differences = [each.difference() for each in found]
    rows = []
    for each, estimated, corrected in zip(found, differences, holm([d.p for d in differences]), strict=True):
        wide, narrow = estimated.interval(), estimated.interval(0.9)
        by_base = (each.values(each.objective) - each.values(each.control)).mean(axis=(1, 2))
        rows.append(
            [
                f"{each.name}: {each.objective} over {each.control}",
                f"{_points(wide.mean)} ({_points(wide.low)} to {_points(wide.high)})",
                ", ".join(map(_points, by_base)),
                _p(estimated.p),
                _p(corrected),
                f"{_points(narrow.low)} to {_points(narrow.high)}",
                "yes" if max(-narrow.low, narrow.high) < EQUIVALENCE else "no",
            ]
        )
    return "\n\n".join(
        [markdown_table(header, rows), *(f"### {each.name}\n\n{_arms_table(each)}" for each in found)]
    )


def _arms_table(compared: Compared) -> str:
    if compared.places:
        header = ["probe of places", "image (95 % interval)", *_SHARES]
        rows = [
            [name, _estimated(compared.values(name)), *_shares(runs)] for name, runs in compared.arms.items()
        ]
        return markdown_table(header, [*rows, ["chance", "50.0", NONE, *_chances()]])
    header = ["GroupMatch", "all (95 % interval)", *KINDS, *_SHARES, "probe of places, image"]
    rows = []
    for name, by_base in compared.arms.items():
        kinds = [_percent(compared.values(name, kind).mean()) for kind in KINDS]
        probe = _percent(fmean(places(run) for runs in by_base for run in runs))
        rows.append([name, _estimated(compared.values(name)), *kinds, *_shares(by_base), probe])
    chance = [_percent(CHANCE["group_match"])] * (1 + len(KINDS))
    return markdown_table(header, [*rows, ["chance", *chance, "0.00", *_chances(), "50.0"]])


_SHARES = ("d'", "group score", "retrieval", "zero-shot")


def _shares(by_base: Sequence[Sequence[Outcome]]) -> list[str]:
    """The columns of _SHARES: means over bases and seeds."""
    runs = [run for of_base in by_base for run in of_base]
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
