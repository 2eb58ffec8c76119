"""Run the demonstration and write its table and figure: `python -m demo.distil`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from demo.experiment import Variant, base_outcome, run_all
from demo.report import write_report
from demo.variants import CONTROLS, SEEDS, chosen
from demo.world import Split

WORK_DIR = Path(tempfile.gettempdir()) / "sds-clip-demo-distil"
TRAINABLE = ("layernorm", "all")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR, help="runs; those that are done are kept")
    parser.add_argument("--teacher", default="demo", help="a teacher reference")
    parser.add_argument("--into", type=Path, default=Path("docs"), help="where the table and figure go")
    parser.add_argument("--split", type=Split, default=Split.HELD_OUT, help="heldout or validation")
    options = parser.parse_args()
    began = time.monotonic()
    runs: list[tuple[Variant, int]] = [
        (variant, seed) for trainable in TRAINABLE for variant in chosen(trainable) for seed in SEEDS
    ]
    outcomes = run_all(runs, options.split, options.teacher, options.work_dir)
    controls = {
        (trainable, method): control for trainable in TRAINABLE for method, control in CONTROLS.items()
    }
    seconds = time.monotonic() - began
    write_report(
        outcomes, base_outcome(options.split), controls, options.into,
        command="make demo-distil", seconds=seconds, split=options.split,
    )  # fmt: skip
    print(f"{options.into / 'results.md'} and its figure are written; {seconds:.0f} s in all")


if __name__ == "__main__":
    main()
