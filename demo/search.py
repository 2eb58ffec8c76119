"""Explore variants of the objective on validation combinations: `python -m demo.search`.

An interrupted search continues where it stopped. After a change to the code, use another --work-dir.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from demo.experiment import WORK_DIR, Series, Variant, base_outcome, one_a_core, run_all, summary
from demo.report import write_search
from demo.variants import CONTROLS, HIGH_NOISE, LEARNING_RATES, NEGATIVES, SCORE, STEPS, chosen
from demo.world import Split

# Plain L_CLIP is the control of all L_SDS variants without negatives: the options in which they differ do not
# affect it.
SEARCH_CONTROLS = CONTROLS | {
    "lambda-10": "clip",
    "all-timesteps": "clip",
    "all-timesteps-lambda-0.1": "clip",
    "random-start": "clip",
    "random-start-lambda-100": "clip",
    "sds-clip-negatives": "clip-negatives",
    "score-weight-3": "clip-negatives-weight-3",
    "score-0.001": "clip-negatives",
    "score-0.01": "clip-negatives",
}


def explored(trainable: str) -> list[Variant]:
    """The chosen methods and variations of them."""
    common = {"trainable": trainable, "steps": STEPS, "lr": LEARNING_RATES[trainable]}
    sds = {**common, "objective": "sds-clip"}
    score = {**common, **NEGATIVES, **SCORE, "objective": "score"}
    return [
        *chosen(trainable),
        Variant.of("lambda-10", **sds, **HIGH_NOISE, sds_weight=10.0),
        Variant.of("all-timesteps", **sds, mapper_start="ridge"),
        Variant.of("all-timesteps-lambda-0.1", **sds, mapper_start="ridge", sds_weight=0.1),
        Variant.of("random-start", **sds),
        Variant.of("random-start-lambda-100", **sds, sds_weight=100.0),
        Variant.of("sds-clip-negatives", **sds, **HIGH_NOISE, **NEGATIVES),
        Variant.of("clip-negatives-weight-3", **common, **NEGATIVES, objective="clip", negatives_weight=3.0),
        Variant.of("score-weight-3", **score, negatives_weight=3.0),
        *(
            Variant.of(f"score-{temperature:g}", **{**score, "score_temperature": temperature})
            for temperature in (1e-3, 1e-2)
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work-dir", type=Path, default=WORK_DIR, help="Folder for the runs. Equal runs are used again."
    )
    parser.add_argument("--teacher", default="demo", help="Reference of the teacher.")
    parser.add_argument("--trainable", choices=("layernorm", "all"), default="all")
    parser.add_argument("--into", type=Path, default=Path("docs"), help="Folder for the table.")
    options = parser.parse_args()
    runs = [(variant, 0) for variant in explored(options.trainable)]
    series = Series(Split.VALIDATION, options.teacher, options.work_dir)
    with one_a_core() as pool:
        outcomes, scoring_s = run_all(series, runs, pool)
    base = base_outcome(Split.VALIDATION)
    command = f"python -m demo.search --teacher {options.teacher} --trainable {options.trainable}"
    write_search(outcomes, base, SEARCH_CONTROLS, options.into, command=command, scoring_s=scoring_s)
    for outcome in [base, *outcomes]:
        print(summary(outcome))


if __name__ == "__main__":
    main()
