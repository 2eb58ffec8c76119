"""Screen the arms of the comparison of objectives on validation combinations: `python -m sds_clip.demo.screening`.

A screening that was stopped continues where it stopped. What was measured is kept in docs/experiments/runs. After a
change to the code, use other folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from sds_clip.demo.arms import LATER, SEEDS, SETTINGS, arms
from sds_clip.demo.experiment import (
    Outcome,
    Series,
    Variant,
    add_series_options,
    base_outcome,
    done,
    one_a_core,
    run_all,
    summary,
)
from sds_clip.demo.options import parser_of, run
from sds_clip.demo.report import screening_table, write_screening
from sds_clip.demo.statistics import right
from sds_clip.demo.world import Split

PER_KIND = 500
MOST_LOST = 0.01
"""How much of retrieval, and of zero-shot, a chosen arm may lose."""


def choose(arms: Sequence[Variant], outcomes: Sequence[Outcome]) -> tuple[str, str]:
    """The control and the objective of a setting, by the plan's rule: the control with the highest GroupMatch first.

    A control asks no teacher. An objective asks one that knows the image. Neither may lose more than MOST_LOST of
    retrieval or zero-shot: a control in comparison with `clip`, an objective in comparison with the control.

    Raises:
        ValueError: no objective loses so little.
    """
    runs = {arm.name: [run for run in outcomes if run.variant == arm.name] for arm in arms}
    controls = [arm.name for arm in arms if arm.teacher_free]
    objectives = [arm.name for arm in arms if arm.informed and arm.name not in LATER]
    control = _best(runs, controls, "clip")
    return control, _best(runs, objectives, control)


def _best(runs: dict[str, list[Outcome]], names: Sequence[str], reference: str) -> str:
    kept = [name for name in names if _lost(runs[name], runs[reference]) <= MOST_LOST]
    if not kept:
        raise ValueError(f"All of {', '.join(names)} lose more than {MOST_LOST:.0%} of what {reference} has.")
    return max(kept, key=lambda name: right(runs[name], score="group_match").mean())


def _lost(runs: Sequence[Outcome], reference: Sequence[Outcome]) -> float:
    """The larger of the losses of retrieval and of zero-shot."""
    return max(_mean(reference, share) - _mean(runs, share) for share in ("retrieval", "zero_shot"))


def _mean(runs: Sequence[Outcome], share: str) -> float:
    return fmean(getattr(run.measured, share) for run in runs)


def _page(
    arms: Sequence[Variant], outcomes: Sequence[Outcome], base: Outcome, left_out: Sequence[str]
) -> str:
    """The table of the arms of a setting that were run, what was left out, and what is chosen among the others."""
    was_run = {outcome.variant for outcome in outcomes}
    parts = [screening_table(outcomes, base, [arm for arm in arms if arm.name in was_run])]
    if given_up := [name for name in left_out if name in was_run]:
        parts.append(f"Given up before every seed was run: {', '.join(given_up)}.")
    if not_run := [name for name in left_out if name not in was_run]:
        parts.append(f"Left out: {', '.join(not_run)}.")
    try:
        control, objective = choose([arm for arm in arms if arm.name not in left_out], outcomes)
        parts.append(f"By the plan's rule, the control is `{control}`, and the objective is `{objective}`.")
    except ValueError as error:
        parts.append(f"By the plan's rule, nothing is chosen. {error}")
    return "\n\n".join(parts)


def main() -> None:
    parser = parser_of(__doc__)
    add_series_options(parser)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument(
        "--only", nargs="+", default=[], help="Run only these arms and their controls, and write no table."
    )
    parser.add_argument(
        "--without", nargs="+", default=[], help="Leave out these arms. What was run of them is shown."
    )
    parser.add_argument("--into", type=Path, default=Path("docs/experiments"), help="Folder for the tables.")
    options = parser.parse_args()
    known = {arm.name for setting in options.settings for arm in arms(setting)}
    if unknown := {*options.only, *options.without} - known:
        parser.error(
            f"There are no arms {', '.join(sorted(unknown))}; choose among {', '.join(sorted(known))}."
        )
    outcomes = options.outcomes / "screening"
    series = Series(Split.VALIDATION, options.teacher, options.work_dir, outcomes, per_kind=PER_KIND)
    base = base_outcome(series)
    print(summary(base), flush=True)
    for setting in options.settings:
        wanted = {*options.only, *(arm.control for arm in arms(setting) if arm.name in options.only)}
        chosen = [
            arm
            for arm in arms(setting)
            if arm.name not in options.without and (not options.only or arm.name in wanted)
        ]
        with one_a_core() as pool:
            found = run_all(series, [(arm, seed) for seed in SEEDS for arm in chosen], pool)
        if not options.only:
            left_out = [(arm, seed) for seed in SEEDS for arm in arms(setting) if arm.name in options.without]
            found += done(series, left_out)
            write_screening(setting, _page(arms(setting), found, base, options.without), options.into)


if __name__ == "__main__":
    run(main)
