"""The arms of the comparison: each has a control that differs from it in the teacher alone."""

import pytest

from sds_clip.demo.arms import PLACEBO, SETTINGS, arms, placebo_of, places_arms, places_by_condition
from sds_clip.demo.experiment import Series

TEACHER = {
    "teacher", "objective", "score_by", "score_labels", "sds_weight", "mapper_start", "t_min",
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
        assert config.batch_size <= Series.pairs
        expected = None if not config.uses_teacher else PLACEBO if arm.name.endswith("placebo") else "demo"
        assert config.teacher == expected


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_arm_but_the_plain_ones_has_a_control_with_the_same_training(setting: str) -> None:
    by_name = {arm.name: arm for arm in arms(setting)}
    for arm in by_name.values():
        if arm.control is None:
            assert arm.teacher_free
            continue
        control = by_name[arm.control]
        # How many samples the teacher sees is also how many have negatives, if there are any.
        allowed = TEACHER if control.config(0, "demo").uses_negatives else TEACHER | {"sds_batch_size"}
        ours, theirs = (each.config(0, "demo").model_dump() for each in (arm, control))
        assert {option for option, value in ours.items() if theirs[option] != value} <= allowed
        assert control.teacher_free


@pytest.mark.parametrize("setting", SETTINGS)
def test_arms_that_may_be_chosen_ask_the_teacher_and_the_placebo_s_do_not(setting: str) -> None:
    informed = {arm.name for arm in arms(setting) if arm.informed}
    assert {"score", "score-hard", "sds-0.3", "sds-1", "sds-3", "condition-1"} <= informed
    free = {arm.name for arm in arms(setting) if arm.teacher_free}
    assert not informed & free
    others = {arm.name for arm in arms(setting)} - informed - free
    assert all(name.endswith(("-placebo", "-misled")) for name in others)
    for arm in arms(setting):
        if arm.informed:
            ours, theirs = (each.config(0, "demo").model_dump() for each in (arm, placebo_of(arm)))
            assert {option for option, value in ours.items() if theirs[option] != value} == {"teacher"}


def test_each_weight_of_l_sds_has_its_placebo_in_the_go_no_go() -> None:
    names = ["sds-0.3", "sds-0.3-placebo", "sds-1", "sds-1-placebo", "sds-3", "sds-3-placebo"]
    assert [arm.name for arm in places_arms()] == names
    by_condition = places_by_condition()
    names = ["condition-1", "condition-1-placebo", "noise-contrast-1", "noise-contrast-1-placebo"]
    assert [arm.name for arm in by_condition] == names
    assert {arm.config(0, "demo").steps for arm in [*places_arms(), *by_condition]} == {200}
