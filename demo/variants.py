"""The ways of fine-tuning that the demonstration compares, and the control of each."""

from __future__ import annotations

from typing import Any

from demo.experiment import SHUFFLED, Variant

SEEDS = (0, 1, 2)
STEPS = 150
LEARNING_RATES = {"layernorm": 3e-3, "all": 5e-4}

# For L_SDS: the range where its gradient is of L_CLIP's size and depends on the caption; see docs/results.md.
HIGH_NOISE: dict[str, Any] = {"mapper_start": "ridge", "t_min": 0.6, "t_max": 0.95}
NEGATIVES: dict[str, Any] = {"negatives": "swap", "negatives_count": 3}
SCORE: dict[str, Any] = {"score_error": "velocity", "score_temperature": 3e-3}
# The control of each method: the same data, steps and captions, without the teacher.
CONTROLS = {
    "sds-clip-full": "clip",
    "sds-clip-sds": "clip",
    "score": "clip-negatives",
}


def chosen(trainable: str) -> list[Variant]:
    """The methods of the table, for one set of trained parameters."""
    common = {"trainable": trainable, "steps": STEPS, "lr": LEARNING_RATES[trainable]}
    return [
        Variant.of("clip", objective="clip", **common),
        Variant.of("sds-clip-full", objective="sds-clip", gradient="full", **HIGH_NOISE, **common),
        Variant.of("sds-clip-sds", objective="sds-clip", gradient="sds", **HIGH_NOISE, **common),
        Variant.of("clip-negatives", objective="clip", **NEGATIVES, **common),
        Variant.of("score", objective="score", **SCORE, **NEGATIVES, **common),
    ]


def without_bindings(trainable: str) -> list[Variant]:
    """Score distillation and its control, on captions that do not tell which attribute belongs where."""
    return [
        Variant.of(variant.name, **dict(variant.options), data=SHUFFLED)
        for variant in chosen(trainable)
        if variant.name in ("clip-negatives", "score")
    ]
