"""The arms of the comparison of objectives (docs/experiments/plan.md), and the control of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sds_clip.demo.experiment import Variant

SETTINGS = ("exact", "tags", "proposed")
"""What the captions are: exact; bags of tags; none, so that captions are proposed by the student itself."""
PLACEBO = str(Path(__file__).parent / "placebo")
SEEDS = (0, 1)
WEIGHTS = (0.3, 1.0, 3.0)
UNIT = {"sds": 1.0, "condition": 200.0, "noise-contrast": 1.0}
"""The weight at which a loss pulls at the image features about as much as the other losses do, measured on the demo."""
PLACES_STEPS = 200
LATER = ("noise-contrast-1", "noise-contrast-1-placebo")
"""Arms that were added after the choice, and choose nothing."""
COMMON: dict[str, Any] = {"trainable": "all", "steps": 150, "lr": 5e-4}
SDS: dict[str, Any] = {"mapper_start": "ridge", "t_min": 0.6, "t_max": 0.95, "ridge_images": 1024}
CONDITION: dict[str, Any] = {"t_min": 0.6, "t_max": 0.95, "mapper_warmup_steps": 50}
NOISE_IMAGES = 16
"""How many images of a batch L_noise sees, so that a step costs as much as one of L_condition."""
TEMPERATURE = 3e-3
SMOOTHED = 0.9  # the own caption's probability in the target that needs no teacher
CHOICE: dict[str, dict[str, Any]] = {
    "exact": {"negatives": "swap", "negatives_count": 3},
    "tags": {"negatives": "data", "negatives_count": 8, "score_candidates": "negatives"},
    "proposed": {"negatives": "data", "negatives_count": 7},
}
"""The captions among which the choice is, in each setting."""


def arms(setting: str) -> list[Variant]:
    """The arms of a setting. Each names its control, which has the same captions and no teacher.

    Of tags, no candidate is known to be right. So the base itself chooses among them in the control.
    """
    common = {**COMMON, "data": f"demo-{setting}"}
    labelled = {**common, **CHOICE[setting], "objective": "clip"}
    choice = {**common, **CHOICE[setting], "objective": "score", "score_temperature": TEMPERATURE}
    found = [Variant.of("clip", **common, objective="clip")]
    if setting == "tags":
        control = "score-base"
        found.append(Variant.of("score-base", **choice, score_by="base"))
    else:
        control = "clip-choice"
        found += [
            Variant.of("clip-choice", **labelled),
            Variant.of("smoothed", **choice, smoothed=SMOOTHED, control=control),
            Variant.of("score-base", **choice, score_by="base", control=control),
        ]
    found += [
        score := Variant.of("score", **choice, control=control),
        Variant.of("score-hard", **choice, score_labels="hard", control=control),
        placebo_of(score),
        Variant.of("score-misled", **choice, misled=True, control=control),
        *_by_gradient("sds", {**common, **SDS, "objective": "sds-clip"}),
        Variant.of(
            "sds-misled",
            **common,
            **SDS,
            objective="sds-clip",
            sds_weight=UNIT["sds"],
            misled=True,
            control="clip",
        ),
        *_by_gradient("condition", {**common, **CONDITION, "objective": "condition"}),
        noise := _noise_contrast(common),
        placebo_of(noise),
    ]
    on_text = {"trainable": "text-map"}
    if setting == "exact":
        found.append(Variant.of("align", **{**labelled, **on_text}))
        found.append(Variant.of("align-score", **{**choice, **on_text}, control="align"))
    if setting == "tags":
        found.append(Variant.of("align-base", **{**choice, **on_text}, score_by="base"))
        found.append(Variant.of("align-score", **{**choice, **on_text}, control="align-base"))
    return found


def places_arms() -> list[Variant]:
    """L_SDS at each weight, each with its placebo, for 200 steps on exact captions."""
    options = {**COMMON, "data": "demo-exact", **SDS, "objective": "sds-clip", "steps": PLACES_STEPS}
    found = [Variant.of(f"sds-{weight:g}", **options, sds_weight=weight * UNIT["sds"]) for weight in WEIGHTS]
    return [each for arm in found for each in (arm, placebo_of(arm))]


def places_by_condition() -> list[Variant]:
    """L_condition and L_noise, each with its placebo, for 200 steps on exact captions."""
    options = {**COMMON, "data": "demo-exact", "steps": PLACES_STEPS}
    condition = {**options, **CONDITION, "objective": "condition", "sds_weight": UNIT["condition"]}
    found = [Variant.of("condition-1", **condition), _noise_contrast(options)]
    return [each for arm in found for each in (arm, placebo_of(arm))]


def placebo_of(arm: Variant) -> Variant:
    """The same arm with the teacher that knows words alone."""
    options = {**dict(arm.options), "teacher": PLACEBO}
    return Variant.of(f"{arm.name}-placebo", **options, control=arm.control)


def _noise_contrast(options: dict[str, Any]) -> Variant:
    noise = {
        "objective": "noise-contrast",
        "sds_weight": UNIT["noise-contrast"],
        "sds_batch_size": NOISE_IMAGES,
    }
    return Variant.of("noise-contrast-1", **options, **CONDITION, **noise, control="clip")


def _by_gradient(name: str, options: dict[str, Any]) -> list[Variant]:
    """A loss on the image features at three weights, and at the middle one with the placebo."""
    weighted = [
        Variant.of(f"{name}-{weight:g}", **options, sds_weight=weight * UNIT[name], control="clip")
        for weight in WEIGHTS
    ]
    return [*weighted, placebo_of(weighted[1])]
