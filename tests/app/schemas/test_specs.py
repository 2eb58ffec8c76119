"""What a job's row holds: read back as it was written, and what cannot be is named."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sds_clip.app.errors import InvalidRequest
from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.schemas.finetune import PATH_OPTIONS, FinetuneSpec, Hyperparameters
from sds_clip.app.schemas.specs import NEWS, JobSpec
from sds_clip.app.store.records import JOB_FORMAT
from sds_clip.models.errors import ConfigError
from sds_clip.models.evaluation.catalog import BENCHMARKS
from sds_clip.models.training.config import FinetuneConfig

SMALL: dict[str, Any] = {"objective": "clip", "hyperparameters": {"steps": 5}, "training_data": "ds_1"}
IF_BETTER = SMALL | {"promote": "if_better"}
WINOGROUND = {"benchmark": "winoground", "data": "ds_2"}


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "seed": st.integers(0, 2**32 - 1),
            "validation_data": st.just("ds_9"),
            "evaluate": st.lists(st.just(WINOGROUND), max_size=3),
            "promote": st.sampled_from(["never", "always"]),
            "alias": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
            "thresholds": st.fixed_dictionaries({"max_p": st.floats(0.001, 1), "max_loss": st.floats(0, 1)}),
        },
    ),
    st.fixed_dictionaries(
        {"steps": st.integers(1, 1000)}, optional={"lr": st.floats(1e-6, 1), "lambda": st.floats(0, 10)}
    ),
)
def test_job_is_read_back_as_it_was_written(asked: dict[str, Any], hyperparameters: dict[str, Any]) -> None:
    spec = FinetuneSpec.model_validate({**SMALL, **asked, "hyperparameters": hyperparameters})
    row = json.loads(json.dumps(spec.as_row()))
    assert FinetuneSpec.read(row) == spec
    assert FinetuneSpec.read(row).as_row() == row


def test_a_row_holds_every_default_and_the_number_of_its_format() -> None:
    row = FinetuneSpec.model_validate(SMALL).as_row()
    own = FinetuneSpec.model_fields.keys() - JobSpec.model_fields.keys() - NEWS
    assert row.keys() == own | {"format"}
    assert row["hyperparameters"].keys() == Hyperparameters.model_fields.keys() - NEWS
    assert row["format"] == JOB_FORMAT
    row = EvaluateSpec(benchmark="winoground", data="ds_1", model="demo").as_row()
    assert row.keys() == EvaluateSpec.model_fields.keys() - JobSpec.model_fields.keys() | {"format"}


def test_a_row_of_a_newer_format_is_refused() -> None:
    row = FinetuneSpec.model_validate(SMALL).as_row()
    with pytest.raises(ConfigError, match="newer"):
        FinetuneSpec.read({**row, "format": JOB_FORMAT + 1})


def test_rows_without_a_format_are_read_as_they_were_meant() -> None:
    """Of releases up to 1414a10: all options of a run were flat, beside the job's own."""
    config = FinetuneConfig(data=Path("unused"), objective="clip", steps=5, lr=0.25, seed=7, base="mine")
    flat = config.model_dump(mode="json", exclude=set(PATH_OPTIONS))
    own = {"training_data": "ds_1", "validation_data": None, "evaluate": [WINOGROUND], "promote": "always"}
    spec = FinetuneSpec.read(
        {**flat, **own, "alias": "candidate", "thresholds": {"max_p": 0.1, "max_loss": 0.0}}
    )
    assert spec.config(data=Path("unused")) == config
    assert (spec.promote, spec.alias, spec.thresholds.max_p) == ("always", "candidate", 0.1)
    assert [each.data for each in spec.evaluate] == ["ds_2"]
    assert FinetuneSpec.read(spec.as_row()) == spec


def test_paths_are_the_worker_s_to_fill_in() -> None:
    spec = FinetuneSpec.model_validate(SMALL)
    run = spec.config(data=Path("/a/captions.json"), images=Path("/a"), device="cpu")
    assert (run.data, run.images, run.device, run.steps) == (Path("/a/captions.json"), Path("/a"), "cpu", 5)
    assert spec.recorded(run).data == Path("ds_1")
    assert spec.recorded(run).images is None
    for name in sorted(PATH_OPTIONS):
        for asked in (SMALL | {name: "/etc"}, SMALL | {"hyperparameters": {"steps": 5, name: "/etc"}}):
            with pytest.raises(ValidationError, match=name):
                FinetuneSpec.model_validate(asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            SMALL | {"hyperparameters": {"steps": 5, "lr": -1}},
            "hyperparameters.lr: .* 0",
        ),
        (SMALL | {"nonsense": 1}, "nonsense"),
        (SMALL | {"promote": "maybe"}, "promote: .*if_better"),
        (SMALL | {"alias": "../x"}, "alias: "),
        ({"objective": "clip", "hyperparameters": {"steps": 5}}, "training_data: "),
        (SMALL | {"training_data": "../ds"}, "training_data: "),
        (
            SMALL | {"evaluate": [{"benchmark": "chess", "data": "ds_2"}]},
            r"evaluate\.0\.benchmark: ",
        ),
        (SMALL | {"evaluate": [WINOGROUND] * 9}, "evaluate: .* 8"),
        (SMALL | {"objective": "sds-clip"}, "teacher"),
        (IF_BETTER, "needs a winoground data set"),
        (IF_BETTER | {"evaluate": [WINOGROUND]}, "needs zero-shot or retrieval"),
    ],
)
def test_what_cannot_be_is_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinetuneSpec.read({**asked, "format": JOB_FORMAT})


def test_options_that_do_not_go_together_are_one_error_of_their_own() -> None:
    for asked, param in (
        (SMALL | {"objective": "sds-clip"}, "teacher"),
        (SMALL | {"hyperparameters": {}}, "hyperparameters"),
        (IF_BETTER, "evaluate"),
        (IF_BETTER | {"evaluate": [WINOGROUND]}, None),
    ):
        with pytest.raises(InvalidRequest) as refused:
            FinetuneSpec.model_validate(asked)
        assert (refused.value.code, refused.value.param) == ("invalid_configuration", param)


def test_promotion_needs_something_to_compare_and_something_to_keep() -> None:
    kept = {"evaluate": [WINOGROUND, {"benchmark": "zeroshot", "data": "ds_3"}]}
    job = FinetuneSpec.model_validate(IF_BETTER | kept)
    assert job.datasets == ("ds_1", "ds_2", "ds_3")
    assert [each.benchmark for each in job.evaluate] == ["winoground", "zero-shot"]
    held_out = IF_BETTER | {"evaluate": [WINOGROUND], "validation_data": "ds_4"}
    assert FinetuneSpec.model_validate(held_out).promote == "if_better"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"model": "demo"}, "benchmark: "),
        ({"benchmark": "winoground"}, "data: "),
        ({"benchmark": "winoground", "data": "d"}, "model"),
        ({"benchmark": "winoground", "data": "d", "scorer": "diffusion"}, "teacher"),
        ({"benchmark": "winoground", "data": "d", "model": "demo", "teacher": "t"}, "teacher"),
        (
            {"benchmark": "zero-shot", "data": "d", "teacher": "t", "scorer": "diffusion"},
            "zero-shot",
        ),
        ({"benchmark": "zero-shot", "data": "d", "model": "demo", "classes": "/etc/passwd"}, "classes"),
    ],
)
def test_evaluation_that_cannot_be_is_named(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluateSpec.read({**asked, "format": JOB_FORMAT})


def test_a_model_beside_a_teacher_is_taken_and_a_teacher_without_the_diffusion_scorer_is_not() -> None:
    asked = {"benchmark": "winoground", "data": "d", "model": "m", "teacher": "t", "format": JOB_FORMAT}
    assert EvaluateSpec.read(asked | {"scorer": "diffusion"}).teacher == "t"
    with pytest.raises(ConfigError, match="scorer diffusion"):
        EvaluateSpec.read(asked)


def test_evaluation_is_read_back_as_it_was_written() -> None:
    job = EvaluateSpec(benchmark="sugar_crepe", data="ds_1", model="demo", baseline="default")
    assert job.benchmark == "sugarcrepe"
    assert EvaluateSpec.read(job.as_row()) == job
    assert job.datasets == ("ds_1",)


SHAPES = {1: "8380505cc73a9a31"}
"""What a spec may hold, by format. The newest is adapted until it is released, and stays then."""


def test_what_an_older_worker_would_not_understand_has_a_format_of_its_own() -> None:
    """A new field, objective or benchmark: raise `JOB_FORMAT` unless that was done since the last release."""
    known = [
        *_shape(FinetuneSpec.model_json_schema()),
        *_shape(EvaluateSpec.model_json_schema()),
        *BENCHMARKS,
    ]
    assert hashlib.sha256("\n".join(sorted(known)).encode()).hexdigest()[:16] == SHAPES[JOB_FORMAT]


def test_a_worker_of_the_release_before_can_run_a_job_that_uses_nothing_new() -> None:
    """A field that is neither among `NEWS` nor known to the release before would fail the job there."""
    known = (
        (FinetuneSpec.model_fields | Hyperparameters.model_fields).keys() - JobSpec.model_fields.keys() - NEWS
    )
    assert hashlib.sha256("\n".join(sorted(known)).encode()).hexdigest()[:16] == "0aca3572f89ec010"
    row = FinetuneSpec.model_validate(SMALL).as_row()
    assert not NEWS & (row | row["hyperparameters"]).keys()
    news = FinetuneSpec.model_validate(
        SMALL | {"hyperparameters": {"steps": 1, "trainable": "lora", "lora_rank": 8}}
    )
    assert news.as_row()["hyperparameters"]["lora_rank"] == 8
    assert FinetuneSpec.read(news.as_row()) == news
    assert "devices" in news.as_shown()


def test_a_row_of_an_earlier_release_keeps_the_negatives_that_text_alone_tells() -> None:
    spec = FinetuneSpec.model_validate(SMALL | {"hyperparameters": {"steps": 1, "negatives": "swap"}})
    row = spec.resolved(max_bad_share=0.0).as_row()
    assert FinetuneSpec.read(row).hyperparameters.balances_negatives
    del row["hyperparameters"]["negatives_balance"]
    assert not FinetuneSpec.read(row).hyperparameters.balances_negatives


def _shape(schema: Any, path: str = "") -> Iterator[str]:
    """The names of all fields, and the values of all choices."""
    if isinstance(schema, list):
        for each in schema:
            yield from _shape(each, path)
    elif isinstance(schema, dict):
        for name, each in schema.items():
            if name in ("enum", "const"):
                yield f"{path} = {each}"
            elif name in ("properties", "$defs"):
                for field, content in each.items():
                    yield f"{path}.{field}"
                    yield from _shape(content, f"{path}.{field}")
            elif name not in ("default", "examples"):
                yield from _shape(each, path)
