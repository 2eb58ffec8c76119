"""Run the demonstration and write its table and figure: `python -m demo.distil`.

An interrupted run continues where it stopped. After a change to the code, use another --work-dir.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from demo.experiment import WORK_DIR, Series, Variant, base_outcome, one_a_core, run_all
from demo.report import RESULTS, SHUFFLED, write_report
from demo.variants import CONTROLS, SEEDS, chosen, without_bindings
from demo.world import Split

TRAINABLE = ("layernorm", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work-dir", type=Path, default=WORK_DIR, help="Folder for the runs. Equal runs are used again."
    )
    parser.add_argument("--teacher", default="demo", help="Reference of the teacher.")
    parser.add_argument(
        "--into", type=Path, default=Path("docs"), help="Folder for the table and the figure."
    )
    parser.add_argument(
        "--split", type=Split, default=Split.HELD_OUT, help="The part to measure on: heldout or validation."
    )
    parser.add_argument(
        "--shuffled",
        action="store_true",
        help="Run score distillation only, on captions that do not tell what belongs to what.",
    )
    options = parser.parse_args()
    methods, section = (without_bindings, SHUFFLED) if options.shuffled else (chosen, RESULTS)
    series = Series(options.split, options.teacher, options.work_dir)
    runs: list[tuple[Variant, int]] = [
        (variant, seed) for trainable in TRAINABLE for variant in methods(trainable) for seed in SEEDS
    ]
    with one_a_core() as pool:
        outcomes, scoring_s = run_all(series, runs, pool)
    controls = {
        (trainable, method): control for trainable in TRAINABLE for method, control in CONTROLS.items()
    }
    write_report(
        outcomes, base_outcome(series), controls, options.into,
        command=f"python -m demo.distil --teacher {options.teacher} --split {options.split}"
        + " --shuffled" * options.shuffled,
        scoring_s=scoring_s, section=section,
    )  # fmt: skip
    print(f"Wrote {options.into / 'results.md'} and {section}.png.")


if __name__ == "__main__":
    main()
