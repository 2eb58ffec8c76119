"""The claim logic under arbitrary histories: a model of what leases allow, against the store, with a fake clock.

The model knows only the contract: a lease counts until the job is claimed again or let go; a job is claimed
when it is queued and due, or running past its lease. An attempt is what begins in the queue and ends with a report;
a lapsed lease and a shutdown are interruptions, and a job that waits for a person has given its attempt back;
a step past the furthest is the first attempt's.
"""

import contextlib
import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sds_clip.app.errors import JobStateConflict, LeaseLost
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, JobError, Lease, NewJob, NewVersion
from sds_clip.app.store.states import HELD, TERMINAL, JobKind, JobStatus
from tests.app.store.conftest import FakeClock
from tests.databases import Databases

TTL_S = 60.0
MAX_RUN_TIME_S = 400.0
ERROR = JobError("boom", "Boom.")
LIMITS = ("interrupted_too_often", "run_time_exceeded")


@dataclass
class Model:
    """What is known of a job without asking the store."""

    max_attempts: int
    max_interruptions: int
    claims: int = 0
    attempt: int = 0
    interruptions: int = 0
    furthest: int = 0
    live: Lease | None = None
    """The lease whose effects count, ended or not."""
    until: float = 0.0
    begun: float = 0.0
    ran_s: float = 0.0
    end: Job | None = None
    """The row as it was when the job ended."""
    made: set[str] = field(default_factory=set)
    success: tuple[Lease, str] | None = None
    """What it succeeded with: saying it again is answered as it was."""

    def let_go(self, now: float) -> None:
        """The lease has no effects any more; it was somebody's until it lapsed."""
        if self.live is not None:
            self.ran_s += max(0.0, min(now, self.until) - self.begun)
        self.live = None

    @property
    def is_spent(self) -> bool:
        return self.interruptions > self.max_interruptions or self.ran_s > MAX_RUN_TIME_S


class Claims(RuleBasedStateMachine):
    """Callers, workers, zombies and the reaper, in any order."""

    databases: Databases

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.store = Store(self.databases.url(self.databases.migrated()), clock=self.clock)
        self.models: dict[str, Model] = {}
        self.leases: list[Lease] = []
        self.contents = itertools.count()

    def teardown(self) -> None:
        """No accepted job is lost: whatever happened, workers can bring every one to an end."""
        self.everything_is_brought_to_an_end()
        self.store.close()

    @rule(attempts=st.integers(1, 3), interruptions=st.integers(0, 3))
    def submit(self, attempts: int, interruptions: int) -> None:
        new = NewJob(
            JobKind.FINETUNE,
            {},
            max_attempts=attempts,
            max_interruptions=interruptions,
            max_run_time_s=MAX_RUN_TIME_S,
        )
        self.clock.advance(0.001)  # the order of claims is that of submissions, not of random ids
        job, _ = self.store.jobs.submit(new)
        self.models[job.id] = Model(attempts, interruptions)

    @rule()
    def claim(self) -> None:
        before = self.clock.now
        job = self.store.leases.claim(JobKind.FINETUNE, "slot", TTL_S)
        if job is None:
            return
        model = self.models[job.id]
        assert model.live is None or model.until <= self.clock.now, "two live leases"
        model.claims += 1
        if model.live is None:
            model.attempt += 1
        else:
            model.interruptions += 1
        model.let_go(before)
        assert not model.is_spent, "it had used up what it may"
        assert job.fence == model.claims, "the fence counts the claims"
        assert job.status is JobStatus.RUNNING
        assert 1 <= job.attempt <= job.max_attempts
        model.live, model.until = Lease.of(job), job.lease_until or before
        model.begun = before
        self.leases.append(model.live)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), ttl_s=st.sampled_from([1.0, TTL_S]))
    def renew(self, data: st.DataObject, ttl_s: float) -> None:
        lease = self.some_lease(data)
        model = self.models[lease.job_id]
        answer = self.store.leases.renew(lease, ttl_s)
        assert (answer is not None) == (lease == model.live)
        if answer is not None:
            assert answer in HELD
            model.until = self.clock.now + ttl_s

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), effect=st.sampled_from(["progress", "event", "metrics"]), step=st.integers(0, 5))
    def report(self, data: st.DataObject, effect: str, step: int) -> None:
        lease = self.some_lease(data)
        model = self.models[lease.job_id]
        act = {
            "progress": lambda: self.store.leases.progress(lease, stage="train", step=step),
            "event": lambda: self.store.leases.event(lease, "hello"),
            "metrics": lambda: self.store.leases.points(lease, {lease.fence: {"fence": lease.fence}}),
        }[effect]
        if lease == model.live:
            act()
            if effect == "progress" and step > model.furthest:
                model.furthest, model.attempt = step, 1
        else:
            with pytest.raises(LeaseLost):
                act()

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        how=st.sampled_from(["release", "suspend", "fail", "retry", "succeed", "same", "plain"]),
    )
    def let_go(self, data: st.DataObject, how: str) -> None:
        lease = self.some_lease(data)
        model = self.models[lease.job_id]
        if (lease, how) == model.success:
            assert self.end(lease, how) == model.end
            return
        if lease != model.live:
            with pytest.raises(LeaseLost):
                self.end(lease, how)
            return
        was_running = self.store.jobs.get(lease.job_id).status
        had = model.attempt
        job = self.end(lease, how)
        assert job.status not in HELD
        assert job.fence == lease.fence
        model.let_go(self.clock.now)
        if how == "release" and was_running is not JobStatus.CANCELLING:
            out_of_time = job.error is not None and job.error.code == "run_time_exceeded"
            model.interruptions += was_running is JobStatus.RUNNING and not out_of_time
            if job.status is JobStatus.FAILED:
                assert model.is_spent
            else:
                model.attempt -= 1
        if how == "suspend":
            model.attempt -= 1
        if how in ("same", "plain") and job.status is JobStatus.SUCCEEDED:
            model.success = lease, how
        if how == "retry" and was_running is JobStatus.RUNNING:
            assert (job.status is JobStatus.QUEUED) == (had < model.max_attempts)
        if job.result_version is not None:
            model.made.add(job.result_version)

    def end(self, lease: Lease, how: str) -> Job:
        work = self.store.leases
        if how == "release":
            return work.release(lease)
        if how == "suspend":
            return work.suspend(lease, ERROR)
        if how in ("fail", "retry"):
            return work.fail(lease, ERROR, retry_in_s=30.0 if how == "retry" else None)
        if how == "plain":
            return work.succeed(lease, result={"fence": lease.fence})
        content = "same" if how == "same" else f"content-{next(self.contents)}"
        return work.succeed(lease, version=NewVersion(content, content, {}, 1))

    @precondition(lambda self: self.models)
    @rule(data=st.data(), what=st.sampled_from(["cancel", "pause", "resume", "retry"]))
    def request(self, data: st.DataObject, what: str) -> None:
        job_id = data.draw(st.sampled_from(list(self.models)))
        ask = getattr(self.store.jobs, f"request_{what}")
        model, before = self.models[job_id], self.store.jobs.get(job_id)
        self.expect_exhausted(model, before)
        with contextlib.suppress(JobStateConflict):
            after = ask(job_id)
            if what == "resume" and before.status is JobStatus.PAUSED:
                model.attempt = 0
            if what == "retry" and before.status in TERMINAL:
                assert before.status is not JobStatus.SUCCEEDED
                assert after.status is JobStatus.QUEUED
                assert after.error is after.finished_at is None
                model.attempt = model.interruptions = model.furthest = 0
                model.ran_s, model.end = 0.0, None

    @rule(seconds=st.sampled_from([0.5, 31.0, 61.0, 301.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def reap(self) -> None:
        for job in self.store.leases.settle_abandoned():
            model = self.models[job.id]
            assert model.until <= self.clock.now, "a live worker was given up"
            model.let_go(self.clock.now)
            model.interruptions += 1

    @invariant()
    def the_store_agrees(self) -> None:
        jobs = {job.id: job for job in self.store.jobs.list(limit=100).items}
        assert jobs.keys() == self.models.keys(), "a job was lost"
        for job_id, model in self.models.items():
            job = jobs[job_id]
            assert job.fence == model.claims
            self.expect_exhausted(model, job)
            assert (job.attempt, job.interruptions) == (model.attempt, model.interruptions)
            assert job.furthest_step == model.furthest
            assert job.run_time_s == pytest.approx(model.ran_s, abs=0.2)
            assert (job.status in HELD) == (model.live is not None)
            assert model.end is None or job == model.end, "an end is for good"
            if job.status in TERMINAL:
                model.end = job
            assert (job.result_version is not None) == bool(model.made)
            assert model.made <= {job.result_version}, "at most one version a job"
            assert job.result_version is None or job.status is JobStatus.SUCCEEDED
        makers = [version.job_id for version in self.store.versions.list(status=None, limit=100).items]
        assert len(makers) == len(set(makers))
        assert all(maker in self.models and self.models[maker].made for maker in makers)

    def expect_exhausted(self, model: Model, job: Job) -> None:
        """A claim may have met a job that has used up what it may, on its way to another."""
        if model.end is None and job.error is not None and job.error.code in LIMITS:
            if model.live is not None:
                assert model.until <= self.clock.now
                model.interruptions += 1
                model.let_go(self.clock.now)
            assert model.is_spent

    def some_lease(self, data: st.DataObject) -> Lease:
        """Rather a recent one: old ones have long been lost."""
        return data.draw(st.sampled_from(self.leases[-4:]))

    def everything_is_brought_to_an_end(self) -> None:
        self.clock.advance(1000)
        self.store.leases.settle_abandoned()
        for job_id in self.models:
            with contextlib.suppress(JobStateConflict):
                self.store.jobs.request_resume(job_id)
        while (job := self.store.leases.claim(JobKind.FINETUNE, "last", TTL_S)) is not None:
            self.store.leases.succeed(Lease.of(job))
        for job_id in self.models:
            assert self.store.jobs.get(job_id).status in TERMINAL


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 40), ("postgresql", 5)])
def test_claims_hold_under_any_history(request: pytest.FixtureRequest, kind: str, examples: int) -> None:
    databases: Databases = request.getfixturevalue(f"{kind}_databases")

    class Machine(Claims):
        pass

    Machine.databases = databases
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
