"""POST /evaluate."""

from typing import Any

import pytest

from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.store.states import JobKind
from sds_clip.models.clip.model import Clip
from tests.app.jobs.conftest import Service, error_of


def test_job_is_accepted_and_says_what_a_worker_will_do(service: Service, small_clip: Clip) -> None:
    data = service.ready_dataset("winoground")

    answer = service.evaluate(model="default", data=data, baseline="demo")

    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["status"], job["scorer"]) == ("evaluate", "queued", "clip")
    assert (job["model"], job["baseline"], job["data"]) == (small_clip.version, "demo", data)
    assert job["options"]["batch_size"] == 32
    claimed, _ = service.claim(JobKind.EVALUATE)
    assert EvaluateSpec.read(claimed.config).model == small_clip.version


def test_models_may_be_named_by_the_beginning_of_their_id(service: Service, small_clip: Clip) -> None:
    short = small_clip.version[:8]

    answer = service.evaluate(model=short, baseline=short)

    assert (answer.json()["model"], answer.json()["baseline"]) == (small_clip.version, small_clip.version)
    claimed, _ = service.claim(JobKind.EVALUATE)
    assert EvaluateSpec.read(claimed.config).versions == (small_clip.version,)


def test_other_spellings_of_a_benchmark_are_taken(service: Service) -> None:
    data = service.ready_dataset("sugarcrepe")

    assert service.evaluate(benchmark="sugar_crepe", data=data).json()["benchmark"] == "sugarcrepe"


@pytest.mark.parametrize("beside", [{}, {"model": "demo"}])
def test_teacher_is_measured_by_the_diffusion_score_and_a_model_may_stand_beside_it(
    service: Service, beside: dict[str, str]
) -> None:
    body = {"benchmark": "winoground", "data": service.ready_dataset("winoground"), **beside}

    answer = service.client.post(
        "/evaluate", json={**body, "scorer": "diffusion", "teacher": "demo", "draws": 4}
    )

    job = answer.json()
    assert (job["status"], job["teacher"], job["options"]["draws"]) == ("queued", "demo", 4)
    assert job["model"] == beside.get("model")


def test_dry_run_accepts_nothing(service: Service) -> None:
    answer = service.evaluate(dry_run=True)

    assert answer.status_code == 200
    assert answer.json()["config"]["model"] == "demo"
    assert service.client.get("/jobs").json()["data"] == []


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"nonsense": 1}, "invalid_request", "nonsense"),
        ({"model": None}, "invalid_request", "model"),
        ({"model": "evil"}, "model_not_allowed", "model"),
        ({"model": "local-dir:/etc"}, "model_not_allowed", "model"),
        ({"baseline": "evil"}, "model_not_allowed", "baseline"),
        ({"model": "b" * 64}, "unusable_record", "model"),
        ({"benchmark": "magic"}, "invalid_request", "benchmark"),
        ({"data": "ds_unknown"}, "unusable_record", "data"),
        ({"benchmark": "retrieval"}, "dataset_format", "data"),
        ({"scorer": "diffusion"}, "invalid_request", "teacher"),
        ({"teacher": "demo"}, "invalid_request", "teacher"),
        ({"scorer": "diffusion", "model": None, "teacher": "evil"}, "model_not_allowed", "teacher"),
        ({"batch_size": 0}, "invalid_request", "batch_size"),
        ({"draws": 10**6}, "invalid_request", "draws"),
        ({"draws": 4}, "invalid_request", "draws"),
        ({"score_error": "epsilon"}, "invalid_request", "score_error"),
        ({"templates": "photo"}, "invalid_request", "templates"),
        ({"order_seed": 1}, "invalid_request", "order_seed"),
        ({"order_seed": 1, "draws": 4}, "invalid_request", None),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(
    refusing: Service, fields: dict[str, Any], code: str, param: str | None
) -> None:
    data = refusing.ready_dataset("winoground")

    error = error_of(refusing.evaluate(**{"data": data, **fields}), 422)

    assert (error["code"], error["param"]) == (code, param)


def test_rows_keep_the_error_that_they_were_accepted_with() -> None:
    """Rows hold every default; that of the score's error was epsilon once."""
    row = {"benchmark": "winoground", "data": "ds_1", "score_error": "epsilon"}
    assert EvaluateSpec.read({**row, "scorer": "clip", "model": "demo"}).scorer == "clip"
    assert EvaluateSpec.read({**row, "scorer": "diffusion", "teacher": "demo"}).score_error == "epsilon"
