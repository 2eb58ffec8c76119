"""Explore variants of the objective on validation combinations: `python -m demo.search`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from demo.experiment import Variant, base_outcome, run_all, summary
from demo.report import write_search
from demo.variants import LEARNING_RATES, NEGATIVES, SCORE, STEPS, TEACHER, chosen
from demo.world import Split

WORK_DIR = Path(tempfile.gettempdir()) / "sds-clip-demo-search"


def explored(trainable: str) -> list[Variant]:
    """What was tried around the chosen methods."""
    common = {"trainable": trainable, "steps": STEPS, "lr": LEARNING_RATES[trainable]}
    sds = {**common, **TEACHER, "objective": "sds-clip"}
    score = {**common, **TEACHER, **NEGATIVES, **SCORE, "objective": "score"}
    return [
        *chosen(trainable),
        *(Variant.of(f"lambda-{value:g}", **{**sds, "sds_weight": value}) for value in (0.1, 10.0)),
        Variant.of("ridge", **sds, mapper_start="ridge"),
        Variant.of("ridge-lambda-10", **sds, mapper_start="ridge", sds_weight=10.0),
        Variant.of("ridge-high-noise", **sds, mapper_start="ridge", t_min=0.3, t_max=0.95),
        Variant.of("ridge-sqrt-abar", **sds, mapper_start="ridge", weighting="sqrt-abar"),
        Variant.of("ridge-min-snr", **sds, mapper_start="ridge", weighting="min-snr"),
        Variant.of("ridge-whole-batch", **sds, mapper_start="ridge", sds_batch_size=128),
        Variant.of("sds-negatives", **sds, **NEGATIVES, mapper_start="ridge"),
        Variant.of(
            "clip-negatives-3", **{**common, **NEGATIVES, "objective": "clip", "negatives_weight": 3.0}
        ),
        Variant.of("score-3", **score, negatives_weight=3.0),
        *(
            Variant.of(f"score-{temperature:g}", **{**score, "score_temperature": temperature})
            for temperature in (1e-3, 1e-2)
        ),
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR, help="runs; those that are done are kept")
    parser.add_argument("--teacher", default="demo", help="a teacher reference")
    parser.add_argument("--trainable", choices=("layernorm", "all"), default="all")
    parser.add_argument("--into", type=Path, default=Path("docs"), help="where the table goes")
    options = parser.parse_args()
    runs = [(variant, 0) for variant in explored(options.trainable)]
    outcomes = run_all(runs, Split.VALIDATION, options.teacher, options.work_dir)
    base = base_outcome(Split.VALIDATION)
    write_search(outcomes, base, options.into, command="make demo-search")
    for outcome in [base, *outcomes]:
        print(summary(outcome))


if __name__ == "__main__":
    main()
