"""Confirm what the screening chose, on held-out combinations: `python -m sds_clip.demo.confirmation --bases 11`.

Each base student is trained from a seed of its own, and has training pairs of its own. The teacher, the held-out items
and the chosen objectives are the same for all. What was measured is kept in docs/experiments/runs. Once all bases are
done, the tables and the figure are written. A run that was stopped continues where it stopped, if its --work-dir is
still there. Otherwise remove what the base has in docs/experiments/runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sds_clip.demo.arms import SEEDS, SETTINGS, arms, placebo_of, places_arms
from sds_clip.demo.base_students import student_of, train_base
from sds_clip.demo.compared import Compared
from sds_clip.demo.experiment import (
    Outcome,
    Series,
    Variant,
    add_series_options,
    base_outcome,
    one_a_core,
    read_outcomes,
    run_all,
    summary,
)
from sds_clip.demo.options import add_compile, parser_of, run
from sds_clip.demo.report import write_confirmation
from sds_clip.demo.training_set import DISTILLATION_SEED
from sds_clip.demo.world import Split

BASES = (11, 12, 13, 14)
"""Seeds of the base students."""
SEED = 20261127
"""Of the held-out items, which nothing has looked at before."""
PER_KIND = 2000
CHOSEN: dict[str, tuple[str, str]] = {
    "exact": ("clip-choice", "score"),
    "tags": ("clip", "score-hard"),
    "proposed": ("clip", "score"),
}
"""The control and the objective that the screening chose in each setting."""
PLACES_ARM: str | None = "sds-1"
"""The arm of L_SDS that `sds_clip.demo.go_no_go` chose, whose probe of places is compared with its placebo's."""


@dataclass(frozen=True)
class Question:
    """One test of the plan: the same students with an objective, with its control, and with its placebo."""

    name: str
    objective: Variant
    control: Variant
    placebo: Variant
    places: bool = False
    """Whether the linear probe of places is compared, instead of GroupMatch."""

    @property
    def arms(self) -> list[Variant]:
        return list(dict.fromkeys([self.control, self.objective, self.placebo]))


def questions() -> list[Question]:
    """The tests of the plan, in its order.

    Raises:
        ValueError: the screening or the go/no-go has not chosen yet.
    """
    if set(CHOSEN) != set(SETTINGS) or PLACES_ARM is None:
        raise ValueError(
            "Nothing held out is looked at before CHOSEN and PLACES_ARM in demo/confirmation.py have what "
            "sds_clip.demo.screening and sds_clip.demo.go_no_go chose."
        )
    found = []
    for setting, (control, objective) in CHOSEN.items():
        by_name = {arm.name: arm for arm in arms(setting)}
        placebo = placebo_of(by_name[objective])
        found.append(Question(setting, by_name[objective], by_name[control], placebo))
    (sds,) = (arm for arm in places_arms() if arm.name == PLACES_ARM)
    placebo = placebo_of(sds)
    return [*found, Question("places", sds, placebo, placebo, places=True)]


def series_of(question: Question, base: int, *, teacher: str, work_dir: Path, outcomes: Path) -> Series:
    """The runs of a question that start from one base student."""
    return Series(
        Split.HELD_OUT,
        teacher,
        work_dir / "runs",
        _folder(question, base, outcomes),
        pairs_seed=DISTILLATION_SEED + base,
        per_kind=PER_KIND,
        seed=SEED,
        base=f"local-dir:{student_of(base, work_dir, by_contrast_alone=question.places)}",
    )


def _folder(question: Question, base: int, outcomes: Path) -> Path:
    return outcomes / f"confirmation-{base}-{question.name}"


def compared(question: Question, outcomes: Path) -> Compared:
    """All outcomes of a question, as they are stored."""
    by_base = [read_outcomes(_folder(question, base, outcomes)).values() for base in BASES]

    def runs_of(name: str) -> list[list[Outcome]]:
        found = [[run for run in runs if run.variant == name] for runs in by_base]
        return [sorted(runs, key=lambda run: run.seed) for runs in found]

    return Compared(
        question.name,
        {name: runs_of(name) for name in ("base", *(arm.name for arm in question.arms))},
        objective=question.objective.name,
        control=question.control.name,
        placebo=question.placebo.name,
        places=question.places,
    )


def _write(found: Sequence[Compared], into: Path) -> None:
    """Write the tables and the figure if every base has every run once; otherwise print what is lacking."""
    lacking = [f"{each.name}: {', '.join(arms)}" for each in found if (arms := each.lacking(SEEDS))]
    if lacking:
        print(f"Not every base has one run of each seed yet. {'; '.join(lacking)}.")
    else:
        write_confirmation(found, into)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument(
        "--bases",
        nargs="*",
        type=int,
        choices=BASES,
        default=BASES,
        help="Base students to run. None only writes the tables.",
    )
    add_series_options(parser)
    parser.add_argument(
        "--into", type=Path, default=Path("docs"), help="Folder for the tables and the figure."
    )
    add_compile(parser)
    options = parser.parse_args()
    try:
        asked = questions()
    except ValueError as error:
        parser.error(str(error))
    for base in options.bases:
        for question in asked:
            train_base(base, options.work_dir, by_contrast_alone=question.places, compiled=options.compile)
            series = series_of(
                question, base, teacher=options.teacher, work_dir=options.work_dir, outcomes=options.outcomes
            )
            print(summary(base_outcome(series)), flush=True)
            with one_a_core() as pool:
                run_all(series, [(arm, seed) for arm in question.arms for seed in SEEDS], pool)
    _write([compared(question, options.outcomes) for question in asked], options.into)


if __name__ == "__main__":
    run(main)
