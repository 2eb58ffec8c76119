"""Confirm what the screening chose, on held-out combinations: `python -m demo.confirmation --bases 11`.

Each base student is trained from a seed of its own, and has training pairs of its own. So a base is one independent
repetition of the whole experiment. What was measured is kept in docs/experiments/runs. Once all bases are done, the
tables and the figure are written. A run that was stopped continues where it stopped, if its --work-dir is still there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo.arms import arms, placebo_of
from demo.build import BY_CONTRAST_ALONE, build
from demo.experiment import (
    RUNS,
    WORK_DIR,
    Outcome,
    Series,
    Variant,
    base_outcome,
    one_a_core,
    read_outcome,
    run_all,
    summary,
)
from demo.report import Compared, write_confirmation
from demo.train_student import Recipe
from demo.training_set import DISTILLATION_SEED
from demo.world import Split

BASES = (11, 12, 13, 14)
"""Seeds of the base students."""
SEEDS = (0, 1)
SEED = 20261127
"""Of the held-out items, which nothing has looked at before."""
PER_KIND = 2000
CHOSEN: dict[str, tuple[str, str]] = {}
"""The control and the objective that the screening chose in each setting."""
PLACES_ARM = "sds-1"
"""The arm of L_SDS whose probe of places is compared with its placebo's, on students trained by contrast alone."""


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
    """The tests of the plan, in its order."""
    found = []
    for setting, (control, objective) in CHOSEN.items():
        by_name = {arm.name: arm for arm in arms(setting)}
        found.append(Question(setting, by_name[objective], by_name[control], placebo_of(by_name[objective])))
    (sds,) = (arm for arm in arms("exact") if arm.name == PLACES_ARM)
    found.append(Question("places", sds, placebo_of(sds), placebo_of(sds), places=True))
    return found


def series_of(question: Question, base: int, *, teacher: str, work_dir: Path, outcomes: Path) -> Series:
    """The runs of a question that start from one base student."""
    return Series(
        Split.HELD_OUT,
        teacher,
        work_dir / "runs",
        outcomes / f"confirmation-{base}-{question.name}",
        pairs_seed=DISTILLATION_SEED + base,
        per_kind=PER_KIND,
        seed=SEED,
        base=f"local-dir:{_student(base, places=question.places, work_dir=work_dir)}",
    )


def train_base(base: int, *, places: bool, work_dir: Path, compiled: bool) -> None:
    """Train a base student, unless it is there: with heads, or by contrast alone."""
    folder = _student(base, places=places, work_dir=work_dir)
    if not folder.exists():
        options = BY_CONTRAST_ALONE if places else {}
        build(
            folder.parent / "checkpoints",
            folder.parent,
            Recipe(seed=base, **options),
            compiled=compiled,
        )


def _student(base: int, *, places: bool, work_dir: Path) -> Path:
    return work_dir / f"base-{base}{'-by-contrast' * places}" / "student"


def compared(question: Question, outcomes: Path, bases: Sequence[int] = BASES) -> Compared:
    """All outcomes of a question, as they are stored."""
    by_base: list[list[Outcome]] = []
    for base in bases:
        files = sorted((outcomes / f"confirmation-{base}-{question.name}").glob("*.json.gz"))
        by_base.append([read_outcome(file) for file in files])

    def runs_of(name: str) -> list[list[Outcome]]:
        found = [[run for run in runs if run.variant == name] for runs in by_base]
        return [sorted(runs, key=lambda run: run.seed) for runs in found]

    return Compared(
        question.name,
        {name: runs_of(name) for name in ("base", *(arm.name for arm in question.arms))},
        objective=question.objective.name,
        control=question.control.name,
        places=question.places,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bases", nargs="*", type=int, choices=BASES, default=BASES, help="Base students to run."
    )
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR, help="Folder for what is trained.")
    parser.add_argument("--outcomes", type=Path, default=RUNS, help="Folder for what was measured.")
    parser.add_argument("--teacher", default="demo", help="Reference of the teacher.")
    parser.add_argument(
        "--into", type=Path, default=Path("docs"), help="Folder for the tables and the figure."
    )
    parser.add_argument("--compile", action="store_true", help="Compile the base students' towers first.")
    options = parser.parse_args()
    for base in options.bases:
        for question in questions():
            train_base(base, places=question.places, work_dir=options.work_dir, compiled=options.compile)
            series = series_of(
                question, base, teacher=options.teacher, work_dir=options.work_dir, outcomes=options.outcomes
            )
            print(summary(base_outcome(series)), flush=True)
            with one_a_core() as pool:
                run_all(series, [(arm, seed) for arm in question.arms for seed in SEEDS], pool)
    found = [compared(question, options.outcomes) for question in questions()]
    if all(each.complete for each in found):
        write_confirmation(found, options.into)


if __name__ == "__main__":
    main()
