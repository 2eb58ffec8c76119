"""What lists say about how much better a job's model has become, and what a job was asked."""

from typing import Any

import pytest

from sds_clip.app.store.states import JobKind
from tests.app.jobs.conftest import Service

MATCH = {"group_match": {"baseline": 0.5, "model": 0.75, "difference": 0.25}}
VALIDATION = {
    "base_validation_image_to_text": 0.2,
    "base_validation_text_to_image": 0.4,
    "validation_image_to_text": 0.5,
    "validation_text_to_image": 0.5,
}


def improvement(service: Service, result: dict[str, Any]) -> Any:
    _, lease = service.begin()
    service.store.leases.succeed(lease, result=result)
    return service.client.get("/jobs").json()["data"][0]["improvement"]


def test_comparison_of_the_gate_counts_first(service: Service) -> None:
    promotion = {"compared_with": "v", "winoground": {"winoground (ds_1)": MATCH}, "kept": {}}

    found = improvement(service, {"promotion": promotion, "metrics": VALIDATION})

    assert found == {
        "metric": "group_match",
        "compared_with": "v",
        "baseline": 0.5,
        "model": 0.75,
        "difference": 0.25,
    }


def test_validation_before_and_after_stands_in_for_it(service: Service) -> None:
    found = improvement(service, {"promotion": None, "metrics": VALIDATION})

    assert found["metric"] == "validation_retrieval"
    assert (found["baseline"], found["model"]) == (pytest.approx(0.3), pytest.approx(0.5))


def test_result_that_compares_nothing_says_nothing(service: Service) -> None:
    results: list[dict[str, Any]] = [{}, {"metrics": {}}, {"promotion": {"winoground": {"w": None}}}]
    assert [improvement(service, result) for result in results] == [None] * 3


def test_evaluation_with_a_baseline_tells_the_difference_of_the_main_figure(service: Service) -> None:
    job = service.evaluate(model="default", baseline="demo").json()
    _, lease = service.claim(JobKind.EVALUATE)
    figures = {
        "primary": "group_score",
        "metrics": {"group_score": {"value": 0.5}},
        "provenance": {"model_version": "v2"},
    }
    other = {**figures, "metrics": {"group_score": {"value": 0.25}}, "provenance": {"model_version": "v1"}}
    service.store.leases.succeed(lease, result={**figures, "baseline": other})

    found = service.client.get(f"/jobs/{job['id']}").json()["improvement"]

    assert (found["metric"], found["compared_with"], found["difference"]) == ("group_score", "v1", 0.25)


def test_job_tells_what_it_was_asked_beside_what_it_does(service: Service) -> None:
    asked = service.request(hyperparameters={"steps": 10, "lr": 0.5})
    job = service.client.post("/finetune", json=asked).json()

    one = service.client.get(f"/jobs/{job['id']}").json()

    assert one["request"] == asked
    assert one["hyperparameters"]["log_every"] == 25
    assert service.client.get("/jobs").json()["data"][0]["request"] is None
