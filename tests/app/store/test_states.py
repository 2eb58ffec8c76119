"""The table of transitions, against what the design says in words."""

import pytest

from sds_clip.app.store.states import (
    FULFILLED,
    HELD,
    OPEN,
    TERMINAL,
    TRANSITIONS,
    Action,
    JobStatus,
    TransitionRefused,
    after,
)


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("status", sorted(TERMINAL))
def test_terminal_statuses_allow_a_retry_of_what_did_not_succeed_and_nothing_else(
    status: JobStatus, action: Action
) -> None:
    if action is Action.RETRY and status is not JobStatus.SUCCEEDED:
        assert after(status, action) is JobStatus.VALIDATING
        return
    with pytest.raises(TransitionRefused, match=status):
        after(status, action)


def test_terminal_statuses_are_the_three_ends() -> None:
    assert {"cancelled", "succeeded", "failed"} == TERMINAL


@pytest.mark.parametrize("status", sorted(OPEN))
def test_every_open_job_can_be_cancelled_or_is_being_cancelled(status: JobStatus) -> None:
    assert status in FULFILLED[Action.CANCEL] or after(status, Action.CANCEL) in FULFILLED[Action.CANCEL]


@pytest.mark.parametrize(
    "action", [Action.RELEASE, Action.SUSPEND, Action.ABANDON, Action.SUCCEED, Action.FAIL]
)
def test_a_job_being_cancelled_ends_cancelled_whatever_its_worker_reports(action: Action) -> None:
    assert after(JobStatus.CANCELLING, action) is JobStatus.CANCELLED


@pytest.mark.parametrize("status", sorted(OPEN))
def test_from_every_open_status_success_and_cancellation_can_be_reached(status: JobStatus) -> None:
    reached = {status}
    while more := {end for (start, _), end in TRANSITIONS.items() if start in reached} - reached:
        reached |= more
    assert JobStatus.CANCELLED in reached
    assert JobStatus.SUCCEEDED in reached or status is JobStatus.CANCELLING


def test_only_held_jobs_take_reports_of_workers() -> None:
    workers = {Action.RELEASE, Action.SUSPEND, Action.ABANDON, Action.SUCCEED, Action.FAIL}
    assert {start for start, action in TRANSITIONS if action in workers} == HELD


def test_only_due_jobs_are_claimed() -> None:
    assert {start for start, action in TRANSITIONS if action is Action.CLAIM} == {"queued", "running"}
