"""The arms of the comparison of objectives (docs/experiments/plan.md), and the control of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from demo.experiment import Variant

SETTINGS = ("exact", "tags", "proposed")
"""What the captions are: exact; bags of tags; none, so that captions are proposed by the student itself."""
PAIRS = 1024
PLACEBO = str(Path(__file__).parent / "placebo")
COMMON: dict[str, Any] = {"trainable": "all", "steps": 150, "lr": 5e-4}
SDS: dict[str, Any] = {"mapper_start": "ridge", "t_min": 0.6, "t_max": 0.95, "ridge_images": PAIRS}
CONDITION: dict[str, Any] = {"t_min": 0.6, "t_max": 0.95, "mapper_warmup_steps": 50}
TEMPERATURE = 3e-3
SMOOTHED = 0.9  # the own caption's probability in the target that needs no teacher
CHOICE: dict[str, dict[str, Any]] = {
    "exact": {"negatives": "swap", "negatives_count": 3},
    "tags": {"negatives": "data", "negatives_count": 8, "score_candidates": "negatives"},
    "proposed": {"negatives": "data", "negatives_count": 7},
}
"""The captions among which the choice is, in each setting."""


def arms(setting: str) -> list[Variant]:
    """The arms of a setting. Those without a teacher come first."""
    common = {**COMMON, "data": f"demo-{setting}"}
    choice = {**common, **CHOICE[setting], "objective": "score", "score_temperature": TEMPERATURE}
    found = [Variant.of("clip", **common, objective="clip")]
    if setting != "tags":  # of tags, no candidate is known to be right
        right = {**common, **CHOICE[setting]}
        found.append(Variant.of("clip-choice", **right, objective="clip"))
        found.append(Variant.of("smoothed", **choice, smoothed=SMOOTHED))
    found += [
        Variant.of("score", **choice),
        Variant.of("score-hard", **choice, score_labels="hard"),
        Variant.of("score-base", **choice, score_by="base"),
        Variant.of("score-placebo", **choice, teacher=PLACEBO),
        Variant.of("score-misled", **choice, misled=True),
    ]
    found += _by_gradient("sds", {**common, **SDS, "objective": "sds-clip"}, misled=True)
    found += _by_gradient("condition", {**common, **CONDITION, "objective": "condition"}, misled=False)
    if setting != "proposed":
        found.append(Variant.of("align-score", **{**choice, "trainable": "text-map"}))
    if setting == "exact":
        found.append(Variant.of("align", **{**right, "objective": "clip", "trainable": "text-map"}))
    return found


def controls(setting: str) -> dict[str, str]:
    """The control of each arm, which has the same captions and no teacher.

    Of tags, no candidate is known to be right. So the base itself chooses among them in the control.
    """
    plain = "score-base" if setting == "tags" else "clip-choice"
    found = {arm.name: plain for arm in arms(setting) if arm.name.startswith(("score", "smoothed"))}
    found.pop(plain, None)
    for arm in arms(setting):
        if arm.name.startswith(("sds", "condition")):
            found[arm.name] = "clip"
        if arm.name.startswith("align"):
            found[arm.name] = "align" if setting == "exact" and arm.name != "align" else plain
    return found


def _by_gradient(name: str, options: dict[str, Any], *, misled: bool) -> list[Variant]:
    """A loss on the image features at three weights, and at the middle one with teachers that cannot help."""
    found = [Variant.of(f"{name}-{weight:g}", **options, sds_weight=weight) for weight in (0.3, 1.0, 3.0)]
    found.append(Variant.of(f"{name}-placebo", **options, teacher=PLACEBO))
    if misled:
        found.append(Variant.of(f"{name}-misled", **options, misled=True))
    return found
