"""The claim logic under arbitrary histories: a model of what leases allow, against the store, with a fake clock.

The model knows only the contract: a lease counts until the job is claimed again or let go; a job is claimed
when it is queued and due, or running past its lease.
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

from app.jobs.states import HELD, TERMINAL, JobKind, JobStatus
from app.store import Store
from app.store.assets import NewVersion
from app.store.errors import JobStateConflict, LeaseLost
from app.store.records import Job, JobError, Lease, NewJob
from tests.app.store.conftest import FakeClock
from tests.databases import Databases

TTL_S = 60.0
ERROR = JobError("boom", "Boom.")


@dataclass
class Model:
    """What is known of a job without asking the store."""

    claims: int = 0
    live: Lease | None = None
    """The lease whose effects count, ended or not."""
    until: float = 0.0
    end: Job | None = None
    """The row as it was when the job ended."""
    made: set[str] = field(default_factory=set)


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

    @rule(attempts=st.integers(1, 3))
    def submit(self, attempts: int) -> None:
        job, _ = self.store.jobs.submit(NewJob(JobKind.FINETUNE, {}, max_attempts=attempts))
        self.models[job.id] = Model()

    @rule()
    def claim(self) -> None:
        before = self.clock.now
        job = self.store.work.claim(JobKind.FINETUNE, "slot", TTL_S)
        if job is None:
            return
        model = self.models[job.id]
        assert model.live is None or model.until <= self.clock.now, "two live leases"
        model.claims += 1
        assert job.fence == model.claims, "the fence counts the claims"
        assert job.status is JobStatus.RUNNING
        assert 1 <= job.attempt <= job.max_attempts
        model.live, model.until = Lease.of(job), job.lease_until or before
        self.leases.append(model.live)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), ttl_s=st.sampled_from([1.0, TTL_S]))
    def renew(self, data: st.DataObject, ttl_s: float) -> None:
        lease = self.some_lease(data)
        model = self.models[lease.job_id]
        answer = self.store.work.renew(lease, ttl_s)
        assert (answer is not None) == (lease == model.live)
        if answer is not None:
            assert answer in HELD
            model.until = self.clock.now + ttl_s

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), effect=st.sampled_from(["progress", "event", "metrics"]))
    def report(self, data: st.DataObject, effect: str) -> None:
        lease = self.some_lease(data)
        act = {
            "progress": lambda: self.store.work.progress(lease, stage="train", step=lease.fence),
            "event": lambda: self.store.work.event(lease, "hello"),
            "metrics": lambda: self.store.work.metrics(lease, lease.fence, {"fence": lease.fence}),
        }[effect]
        if lease == self.models[lease.job_id].live:
            act()
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
        if lease != model.live:
            with pytest.raises(LeaseLost):
                self.end(lease, how)
            return
        job = self.end(lease, how)
        assert job.status not in HELD
        assert job.fence == lease.fence
        model.live = None
        if job.result_version is not None:
            model.made.add(job.result_version)

    def end(self, lease: Lease, how: str) -> Job:
        work = self.store.work
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
    @rule(data=st.data(), what=st.sampled_from(["cancel", "pause", "resume"]))
    def request(self, data: st.DataObject, what: str) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.models)))
        ask = getattr(self.store.jobs, f"request_{what}")
        with contextlib.suppress(JobStateConflict):
            ask(job_id)

    @rule(seconds=st.sampled_from([0.5, 31.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def reap(self) -> None:
        for job in self.store.reaper.settle_abandoned():
            model = self.models[job.id]
            assert model.until <= self.clock.now, "a live worker was given up"
            model.live = None

    @invariant()
    def the_store_agrees(self) -> None:
        jobs = {job.id: job for job in self.store.jobs.list(limit=100).items}
        assert jobs.keys() == self.models.keys(), "a job was lost"
        for job_id, model in self.models.items():
            job = jobs[job_id]
            assert job.fence == model.claims
            if job.status is JobStatus.FAILED and model.live is not None:
                model.live = None  # its attempts were used up when another worker came for it
                assert model.until <= self.clock.now
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

    def some_lease(self, data: st.DataObject) -> Lease:
        """Rather a recent one: old ones have long been lost."""
        return data.draw(st.sampled_from(self.leases[-4:]))

    def everything_is_brought_to_an_end(self) -> None:
        self.clock.advance(1000)
        self.store.reaper.settle_abandoned()
        for job_id in self.models:
            with contextlib.suppress(JobStateConflict):
                self.store.jobs.request_resume(job_id)
        while (job := self.store.work.claim(JobKind.FINETUNE, "last", TTL_S)) is not None:
            self.store.work.succeed(Lease.of(job))
        for job_id in self.models:
            assert self.store.jobs.get(job_id).status in TERMINAL


@pytest.mark.parametrize(("kind", "examples"), [("sqlite", 15), ("postgresql", 3)])
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
