"""A job's curves: thinned on the server, and nothing of what a chart would show is lost."""

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from sds_clip.app.jobs.curves import thin
from sds_clip.app.schemas.curves import MIN_POINTS
from sds_clip.app.store.job_events import MAX_TEXTS
from sds_clip.app.store.tables import metrics
from tests.app.jobs.conftest import Service
from tests.databases import on_both

Values = st.lists(st.floats(-1e6, 1e6) | st.just(math.nan), min_size=1, max_size=400)
Points = st.integers(MIN_POINTS, 200)


def curves(service: Service, job: str, **query: Any) -> dict[str, Any]:
    answer = service.client.get(f"/jobs/{job}/curves", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["curves"]
    return found


def report(service: Service, points: dict[int, dict[str, float]]) -> str:
    """A running job with these metrics."""
    job, lease = service.begin()
    service.store.leases.points(lease, points)
    return job


@given(Values, Points)
def test_places_are_in_order_few_enough_and_have_both_ends(values: list[float], points: int) -> None:
    kept = thin(np.array(values), points).tolist()

    assert kept == sorted(set(kept))
    assert len(kept) <= points
    assert (kept[0], kept[-1]) == (0, len(values) - 1)


@given(Values, Points)
def test_short_curve_is_left_whole(values: list[float], points: int) -> None:
    if len(values) <= points:
        assert thin(np.array(values), points).tolist() == list(range(len(values)))


@given(Values, Points)
def test_each_bucket_keeps_its_extremes_and_a_missing_value(values: list[float], points: int) -> None:
    kept = set(thin(np.array(values), points).tolist())

    has_missing = any(map(math.isnan, values))
    width = math.ceil(len(values) / ((points - 2) // (3 if has_missing else 2)))
    for start in range(0, len(values), width):
        places = range(start, min(start + width, len(values)))
        shown = [values[place] for place in places if place in kept]
        bucket = [values[place] for place in places]
        finite = [value for value in bucket if not math.isnan(value)]
        if finite:
            assert {min(finite), max(finite)} <= set(shown)
        assert any(map(math.isnan, shown)) == any(map(math.isnan, bucket))


@on_both
def test_metrics_become_columns_of_the_steps_that_have_them(service: Service) -> None:
    job = report(
        service,
        {1: {"loss": 1.0, "lr": 0.5}, 2: {"loss": math.nan}, 4: {"loss": 3.0, "validation": 7.0}},
    )

    assert curves(service, job) == {
        "loss": {
            "steps": [1, 2, 4],
            "values": [1.0, None, 3.0],
            "count": 3,
            "last": {"step": 4, "value": 3.0},
        },
        "lr": {"steps": [1], "values": [0.5], "count": 1, "last": {"step": 1, "value": 0.5}},
        "validation": {"steps": [4], "values": [7.0], "count": 1, "last": {"step": 4, "value": 7.0}},
    }


@on_both
def test_curves_are_chosen_by_name_and_by_step(service: Service) -> None:
    job = report(service, {step: {"loss": float(step), "lr": 0.5} for step in range(10)})

    found = curves(service, job, names=["loss", "none"], from_step=3, to_step=5)

    assert list(found) == ["loss"]
    assert found["loss"]["steps"] == [3, 4, 5]
    assert curves(service, job, from_step=6, to_step=5) == {}


def test_job_without_metrics_has_no_curves(service: Service) -> None:
    assert curves(service, service.finetune()["id"]) == {}


@on_both
def test_long_curve_keeps_its_peaks_at_every_zoom(service: Service) -> None:
    job, count = str(service.finetune()["id"]), 20_000
    values = [random.Random(step).gauss(0, 1) for step in range(count)]
    values[10_234], values[17_777] = 90.0, -90.0
    rows = [
        {"job_id": job, "step": step, "values": {"loss": value}, "at": 0.0}
        for step, value in enumerate(values)
    ]
    with service.store.database.writing() as connection:
        connection.execute(insert(metrics), rows)

    whole = curves(service, job, points=500)["loss"]
    near = curves(service, job, points=500, from_step=10_000, to_step=10_400)["loss"]

    assert len(whole["steps"]) <= 500
    assert whole["count"] == count
    assert whole["last"] == {"step": count - 1, "value": pytest.approx(values[-1])}
    assert {(10_234, 90.0), (17_777, -90.0)} <= set(zip(whole["steps"], whole["values"], strict=True))
    assert near["steps"] == list(range(10_000, 10_401))


def test_no_step_is_lost_or_doubled_between_two_pages(service: Service) -> None:
    job, count = str(service.finetune()["id"]), 2 * MAX_TEXTS
    rows = [{"job_id": job, "step": 3 * step, "values": {"loss": 0.5}, "at": 0.0} for step in range(count)]
    with service.store.database.writing() as connection:
        connection.execute(insert(metrics), rows)

    found = curves(service, job, points=10_000)["loss"]

    assert found["steps"] == [3 * step for step in range(count)]
