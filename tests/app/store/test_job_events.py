"""Events and metrics: order, bounds, retention."""

import pytest

from sds_clip.app.store import Store, job_events
from sds_clip.app.store.records import EventType, Level
from sds_clip.app.store.states import JobStatus
from tests.app.store.conftest import FakeClock, at_once, begun, claimed, submitted


def test_life_of_a_job_is_told_in_order(store: Store) -> None:
    lease = begun(store)
    assert store.leases.event(lease, "Loaded.", level=Level.WARNING, data={"n": 1}) == 3
    assert store.leases.points(lease, {25: {"loss": 0.5}}) == 4
    store.leases.succeed(lease)
    told = store.events.events(lease.job_id)
    assert [(event.number, event.type, event.data) for event in told] == [
        (1, "status", {"from": None, "to": "queued"}),
        (2, "status", {"from": "queued", "to": "running", "owner": "slot", "fence": 1}),
        (3, "message", {"n": 1}),
        (4, "metrics", {"step": 25, "values": {"loss": 0.5}}),
        (5, "status", {"from": "running", "to": "succeeded", "version": None}),
    ]
    assert [event.at for event in told] == sorted(event.at for event in told)
    assert (told[2].message, told[2].level) == ("Loaded.", Level.WARNING)
    assert [event.number for event in store.events.transitions(lease.job_id)] == [1, 2, 5]
    assert [event.number for event in store.events.transitions(lease.job_id, limit=1)] == [5]
    assert store.jobs.get(lease.job_id).event_count == 5


def test_events_go_on_after_a_number(store: Store) -> None:
    lease = begun(store)
    for index in range(4):
        store.leases.event(lease, str(index))
    assert [event.number for event in store.events.events(lease.job_id, after=2, limit=3)] == [3, 4, 5]
    assert [event.number for event in store.events.events(lease.job_id, after=5)] == [6]
    assert store.events.events(lease.job_id, after=6) == ()


def test_events_written_at_once_get_numbers_without_gaps_or_repeats(store: Store) -> None:
    lease = begun(store)
    at_once(*[lambda: [store.leases.event(lease, "hello") for _ in range(5)]] * 4)
    assert [event.number for event in store.events.events(lease.job_id)] == list(range(1, 23))


def test_long_texts_and_data_are_cut_and_broken_ones_mended(store: Store) -> None:
    lease = begun(store)
    store.leases.event(lease, "x" * 5000, data={"big": "y" * 20_000})
    store.leases.event(lease, "nul \0 and \ud800", data={"nan": float("nan"), "nul": "\0"})
    cut, mended = store.events.events(lease.job_id, after=2)
    assert (len(cut.message), cut.data) == (2000, {"left_out_bytes": 20_000 + len('{"big": ""}')})
    assert (mended.message, mended.data) == ("nul \ufffd and ?", {"nan": None, "nul": "\0"})


def test_step_that_a_resumed_job_repeats_replaces_the_earlier_one(store: Store, clock: FakeClock) -> None:
    lease = begun(store)
    for step in (25, 50, 75):
        store.leases.points(lease, {step: {"loss": float(step)}})
    clock.advance(61)
    lease = claimed(store)
    store.leases.points(lease, {50: {"loss": -1.0, "gap": float("inf")}})
    curve = store.events.metrics(lease.job_id)
    assert [(point.step, point.values) for point in curve] == [
        (25, {"loss": 25.0}),
        (50, {"loss": -1.0, "gap": None}),
        (75, {"loss": 75.0}),
    ]
    assert [point.step for point in store.events.metrics(lease.job_id, after=25, limit=1)] == [50]
    latest = store.events.latest_metrics(lease.job_id)
    assert latest is not None
    assert latest.step == 75
    assert store.jobs.get(lease.job_id).step == 50


def test_points_of_many_steps_are_written_at_once_and_replace_those_that_were_there(store: Store) -> None:
    lease = begun(store)
    assert store.leases.points(lease, {step: {"loss": 1.0} for step in (1, 2, 3)}) == 5
    assert store.leases.points(lease, {3: {"loss": float("nan")}, 4: {"loss": 0.5}}) == 7
    curve = [(point.step, point.values) for point in store.events.metrics(lease.job_id)]
    assert curve == [(1, {"loss": 1.0}), (2, {"loss": 1.0}), (3, {"loss": None}), (4, {"loss": 0.5})]
    told = [(event.number, event.data) for event in store.events.events(lease.job_id, after=2)]
    assert told == [
        (3, {"step": 1, "values": {"loss": 1.0}}),
        (4, {"step": 2, "values": {"loss": 1.0}}),
        (5, {"step": 3, "values": {"loss": 1.0}}),
        (6, {"step": 3, "values": {"loss": None}}),
        (7, {"step": 4, "values": {"loss": 0.5}}),
    ]
    assert store.jobs.get(lease.job_id).step == 4


def test_events_stay_bounded_while_the_job_runs_and_its_curve_is_whole(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_events, "MAX_EVENTS", 16)
    lease = begun(store)
    for step in range(20):
        store.leases.points(lease, {step: {"loss": 1.0}})
    store.leases.points(lease, {step: {"loss": 1.0} for step in range(20, 40)})
    numbers = [event.number for event in store.events.events(lease.job_id)]
    assert numbers == [1, 2, *range(27, 43)]
    assert [point.step for point in store.events.metrics(lease.job_id)] == list(range(40))


def test_metrics_displace_no_message(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_events, "MAX_EVENTS", 16)
    lease = begun(store)
    store.leases.event(lease, "first")
    for step in range(40):
        store.leases.points(lease, {step: {"loss": 1.0}})
    assert [event.message for event in store.events.events(lease.job_id) if event.type == "message"] == [
        "first"
    ]
    for number in range(40):
        store.leases.event(lease, str(number))
    left = [event for event in store.events.events(lease.job_id, limit=1000) if event.type == "message"]
    assert [event.message for event in left] == [str(number) for number in range(24, 40)]


def test_prune_leaves_the_transitions_of_jobs_that_ended_long_ago(store: Store, clock: FakeClock) -> None:
    old = submitted(store)
    lease = claimed(store)
    store.leases.points(lease, {1: {"loss": 1.0}})
    store.leases.succeed(lease)
    clock.advance(1000)
    running = submitted(store)
    lease = claimed(store)
    store.leases.event(lease, "hello")
    recent = store.jobs.request_cancel(submitted(store).id)
    assert recent.status is JobStatus.CANCELLED
    assert store.events.prune(500) == 1
    assert store.events.prune(500) == 0
    assert {event.type for event in store.events.events(old.id)} == {EventType.STATUS}
    assert len(store.events.metrics(old.id)) == 1
    assert len(store.events.events(running.id)) == 3
