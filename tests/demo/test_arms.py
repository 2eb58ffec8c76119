"""The arms of the comparison: each has a control that differs from it in the teacher alone."""

import pytest

from demo.arms import PAIRS, PLACEBO, SETTINGS, arms, controls

TEACHER = {
    "teacher", "objective", "score_by", "score_labels", "score_candidates", "sds_weight", "mapper_start", "t_min",
    "t_max", "mapper_warmup_steps", "ridge_images",
}  # fmt: skip
"""Options that say what the teacher does; a run without one does not use them."""


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_arm_is_a_valid_run_of_its_setting(setting: str) -> None:
    names = [arm.name for arm in arms(setting)]
    assert len(set(names)) == len(names)
    for arm in arms(setting):
        config = arm.config(0, "demo")
        assert str(config.data) == f"demo-{setting}"
        assert config.batch_size <= PAIRS
        expected = None if not config.uses_teacher else PLACEBO if arm.name.endswith("placebo") else "demo"
        assert config.teacher == expected


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_arm_but_the_controls_has_a_control_with_the_same_training(setting: str) -> None:
    by_name = {arm.name: arm for arm in arms(setting)}
    for name, control in controls(setting).items():
        ours, theirs = (by_name[each].config(0, "demo").model_dump() for each in (name, control))
        different = {option for option, value in ours.items() if theirs[option] != value} - TEACHER
        assert different <= {"trainable"} if name.startswith("align") else not different
        assert by_name[control].config(0, "demo").teacher is None
    without = set(by_name) - set(controls(setting))
    assert without <= {"clip", "clip-choice", "score-base"}
