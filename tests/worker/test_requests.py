"""What a job's row holds: read back as it was written, and what cannot be is named."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.store.specs import PLACES, parse_evaluate, parse_finetune
from models.training.config import FinetuneConfig
from models.training.errors import ConfigError

SMALL: dict[str, Any] = {"objective": "clip", "steps": 5, "training_data": "ds_1"}
IF_BETTER = SMALL | {"promote": "if_better"}
WINOGROUND = {"benchmark": "winoground", "data": "ds_2"}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "lr": st.floats(1e-6, 1),
            "lambda": st.floats(0, 10),
            "seed": st.integers(0, 2**32 - 1),
            "validation_data": st.just("ds_9"),
            "evaluate": st.lists(st.just(WINOGROUND), max_size=3),
            "promote": st.sampled_from(["never", "always"]),
            "alias": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
            "thresholds": st.fixed_dictionaries({"max_p": st.floats(0.001, 1), "max_loss": st.floats(0, 1)}),
        },
    )
)
def test_job_is_read_back_as_it_was_written(asked: dict[str, Any]) -> None:
    job = parse_finetune(SMALL | asked)
    held = job.as_json()
    assert parse_finetune(held) == job
    assert parse_finetune(held).as_json() == held
    assert held.keys() & PLACES == set()
    assert held.keys() >= (FinetuneConfig.model_fields.keys() - PLACES)


def test_places_are_the_worker_s_to_fill_in() -> None:
    job = parse_finetune(SMALL)
    run = job.training(data=Path("/a/captions.json"), images=Path("/a"), device="cpu")
    assert (run.data, run.images, run.device, run.steps) == (Path("/a/captions.json"), Path("/a"), "cpu", 5)
    for place in sorted(PLACES):
        with pytest.raises(ConfigError, match=f"{place} is not for a job to say"):
            parse_finetune(SMALL | {place: "/etc"})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (SMALL | {"lr": -1}, "lr: input should be greater than 0"),
        (SMALL | {"nonsense": 1}, "there is no option nonsense"),
        (SMALL | {"promote": "maybe"}, "promote: input should be"),
        (SMALL | {"alias": "../x"}, "alias: string should match"),
        ({"objective": "clip", "steps": 5}, "training_data: field required"),
        (SMALL | {"training_data": "../ds"}, "training_data: string should match"),
        (
            SMALL | {"evaluate": [{"benchmark": "chess", "data": "ds_2"}]},
            r"evaluate\.0\.benchmark: there is no",
        ),
        (SMALL | {"evaluate": [WINOGROUND] * 9}, "evaluate: tuple should have at most 8"),
        (SMALL | {"objective": "sds-clip"}, "needs a teacher"),
        (IF_BETTER, "needs a winoground data set"),
        (IF_BETTER | {"evaluate": [WINOGROUND]}, "needs zero-shot or retrieval"),
    ],
)
def test_what_cannot_be_is_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_finetune(asked)


def test_promotion_needs_something_to_compare_and_something_to_keep() -> None:
    kept = {"evaluate": [WINOGROUND, {"benchmark": "zeroshot", "data": "ds_3"}]}
    job = parse_finetune(IF_BETTER | kept)
    assert job.datasets == ("ds_1", "ds_2", "ds_3")
    assert [each.benchmark for each in job.evaluate] == ["winoground", "zero-shot"]
    assert (
        parse_finetune(IF_BETTER | {"evaluate": [WINOGROUND], "validation_data": "ds_4"}).promote
        == "if_better"
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"model": "demo"}, "benchmark: field required"),
        ({"benchmark": "winoground"}, "data: field required"),
        ({"benchmark": "winoground", "data": "d"}, "needs a model"),
        ({"benchmark": "winoground", "data": "d", "scorer": "diffusion"}, "needs a teacher"),
        ({"benchmark": "winoground", "data": "d", "model": "demo", "teacher": "t"}, "belongs to the scorer"),
        (
            {"benchmark": "zero-shot", "data": "d", "teacher": "t", "scorer": "diffusion"},
            "cannot be measured",
        ),
        ({"benchmark": "zero-shot", "data": "d", "model": "demo", "classes": "/etc/passwd"}, "classes"),
    ],
)
def test_evaluation_that_cannot_be_is_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_evaluate(asked)


def test_a_model_beside_a_teacher_is_taken_and_a_teacher_without_the_diffusion_scorer_is_not() -> None:
    asked = {"benchmark": "winoground", "data": "d", "model": "m", "teacher": "t"}
    assert parse_evaluate(asked | {"scorer": "diffusion"}).teacher == "t"
    with pytest.raises(ConfigError, match="teacher belongs to the scorer diffusion"):
        parse_evaluate(asked)


def test_evaluation_is_read_back_as_it_was_written() -> None:
    job = parse_evaluate({"benchmark": "sugar_crepe", "data": "ds_1", "model": "demo", "baseline": "default"})
    assert job.benchmark == "sugarcrepe"
    assert parse_evaluate(job.as_json()) == job
    assert job.datasets == ("ds_1",)
