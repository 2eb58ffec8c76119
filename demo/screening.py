"""Screen the arms of the comparison of objectives on validation combinations: `python -m demo.screening`.

A screening that was stopped continues where it stopped. After a change to the code, use another --work-dir.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from demo.arms import PAIRS, SETTINGS, arms, controls
from demo.experiment import WORK_DIR, Series, base_outcome, one_a_core, run_all, summary
from demo.report import write_screening
from demo.world import Split

SEEDS = (0, 1)
PER_KIND = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work-dir", type=Path, default=WORK_DIR, help="Folder for the runs. Equal runs are used again."
    )
    parser.add_argument("--teacher", default="demo", help="Reference of the teacher.")
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument(
        "--arms", nargs="+", default=[], help="Run only these arms and their controls, and write no table."
    )
    parser.add_argument("--into", type=Path, default=Path("docs/experiments"), help="Folder for the tables.")
    options = parser.parse_args()
    known = {arm.name for setting in options.settings for arm in arms(setting)}
    if unknown := set(options.arms) - known:
        parser.error(
            f"There are no arms {', '.join(sorted(unknown))}; choose among {', '.join(sorted(known))}."
        )
    series = Series(Split.VALIDATION, options.teacher, options.work_dir, PAIRS, PER_KIND, probed=True)
    base = base_outcome(series)
    print(summary(base))
    for setting in options.settings:
        wanted = {*options.arms, *(controls(setting).get(name) for name in options.arms)}
        chosen = [arm for arm in arms(setting) if not options.arms or arm.name in wanted]
        runs = [(arm, seed) for seed in options.seeds for arm in chosen]
        with one_a_core() as pool:
            outcomes, scoring_s = run_all(series, runs, pool)
        if not options.arms:
            write_screening(setting, outcomes, base, controls(setting), options.into, scoring_s=scoring_s)


if __name__ == "__main__":
    main()
