"""Does L_SDS bring places into the pooled image embedding? `python -m sds_clip.demo.go_no_go`

A student that was trained by contrast alone, whose embeddings hold no places, is fine-tuned for 200 steps by L_SDS at
each weight, and likewise with the placebo teacher. The linear probe of places is read on validation scenes. It is a go
if the probe rises at least 5 points over the placebo's. The confirmation then has the weight with the largest rise.
`--by-condition` asks the same of L_condition and L_noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from sds_clip.demo.arms import places_arms, places_by_condition
from sds_clip.demo.base_students import train_base
from sds_clip.demo.compared import places
from sds_clip.demo.experiment import Outcome, Series, add_series_options, base_outcome, one_a_core, run_all
from sds_clip.demo.options import add_compile, parser_of, run
from sds_clip.demo.report import gradient_share
from sds_clip.demo.world import Split
from sds_clip.models.markdown import markdown_table

BASE = 10
"""Seed of the student that the plan names, which the confirmation does not use."""
RISE = 0.05


def page(base: Outcome, outcomes: Sequence[Outcome]) -> str:
    """The table of the probes, and the verdict."""
    probes = {run.variant: fmean(places(run)) for run in outcomes}
    rises = {
        name: probes[name] - probes[f"{name}-placebo"] for name in probes if not name.endswith("-placebo")
    }
    shares = {run.variant: gradient_share([run]) for run in outcomes}
    rows = [
        [
            name,
            shares[name],
            f"{100 * probes[name]:.1f}",
            f"{100 * probes[f'{name}-placebo']:.1f}",
            f"{100 * rise:+z.1f}",
        ]
        for name, rise in rises.items()
    ]
    header = ["arm", "gradient ratio", "probe of places, %", "with the placebo, %", "rise, points"]
    best = max(rises, key=rises.__getitem__)
    verdict = "Go" if rises[best] >= RISE else "No go"
    return (
        f"Before: {100 * fmean(places(base)):.1f} % (chance 50).\n\n{markdown_table(header, rows)}\n\n"
        f"{verdict}: `{best}` has the largest rise, {100 * rises[best]:+z.1f} points."
    )


def main() -> None:
    parser = parser_of(__doc__)
    add_series_options(parser)
    add_compile(parser)
    parser.add_argument("--seed", type=int, default=BASE, help="Seed of the student.")
    parser.add_argument(
        "--by-condition", action="store_true", help="Run L_condition and L_noise in place of L_SDS."
    )
    options = parser.parse_args()
    student = train_base(options.seed, options.work_dir, by_contrast_alone=True, compiled=options.compile)
    series = Series(
        Split.VALIDATION,
        options.teacher,
        options.work_dir,
        options.outcomes / "go-no-go",
        base=f"local-dir:{student}",
    )
    wanted = places_by_condition() if options.by_condition else places_arms()
    with one_a_core() as pool:
        outcomes = run_all(series, [(arm, 0) for arm in wanted], pool)
    print(page(base_outcome(series), outcomes))


if __name__ == "__main__":
    run(main)
