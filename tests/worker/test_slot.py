"""A slot and the processes of light jobs: what becomes of a job, however its process ends."""

import errno
import os
import shlex
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from sds_clip.app.store import tables
from sds_clip.app.store.records import Job, Lease
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.folders import JobFolder, Occupant, occupants
from sds_clip.worker.identity import ProcessId, identify, is_alive
from sds_clip.worker.protocol import Assignment, Exit
from sds_clip.worker.slot import Slot, end_orphans
from sds_clip.worker.supervised import ChildProcess
from tests.databases import held, on_both_if_long
from tests.worker.waiting import LIGHT, PATIENCE_S, end, until
from tests.worker.work import Work

pytestmark = on_both_if_long


def test_jobs_run_one_after_another_oldest_first(work: Work) -> None:
    jobs = [work.light("count", steps=2) for _ in range(2)]
    with work.running():
        work.until(jobs[1], JobStatus.SUCCEEDED)
    expected = [f"{what} {job.id} 1" for job in jobs for what in ("begun", "ended")]
    assert work.notes() == expected
    first = work.get(jobs[0])
    assert (first.result, first.attempt, first.step, first.steps) == ({"counted": 2}, 1, 2, 2)
    assert not list(work.config.jobs_dir.glob("*/*/process.json"))


def test_slot_that_is_told_of_a_job_runs_it_at_once_and_a_warm_process_does_it(work: Work) -> None:
    with work.running(idle_tick_s=3600, keep_warm=True) as slot:
        assert slot._spare is not None
        warm = slot._spare.pid
        job = work.light("count", steps=1)
        assert slot.run(job.id) is JobStatus.SUCCEEDED
    assert (work.config.data_dir / "notes").read_text().split()[3] == str(warm)


def test_job_runs_though_celery_s_tools_cannot_be_told_of_it(work: Work) -> None:
    def name(job_id: str) -> None:
        raise ConnectionError("The broker is gone.")

    job = work.light("count", steps=1)
    with work.running(idle_tick_s=3600) as slot:
        assert slot.run(job.id, name) is JobStatus.SUCCEEDED
    assert work.get(job).fence == 1


def test_warm_process_that_dies_is_replaced_before_the_next_job(work: Work) -> None:
    with work.running(keep_warm=True) as slot:
        first = warm_pid(slot)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: warm_pid(slot) not in (None, first))
        second = warm_pid(slot)
        job = work.light("count", steps=1)
        work.until(job, JobStatus.SUCCEEDED)
    assert (work.config.data_dir / "notes").read_text().split()[3] == str(second)


def test_warm_process_that_dies_again_is_not_replaced_at_once(work: Work) -> None:
    with work.running(idle_tick_s=3600, keep_warm=True) as slot:
        first, second = kill_spare(slot), kill_spare(slot)
        assert first != second
        slot._replace_spare()
        assert warm_pid(slot) == second
        slot._no_spare_before = 0.0
        assert kill_spare(slot) != second


def kill_spare(slot: Slot) -> int:
    """Look for a dead warm process, then kill the one that lives; returns its pid."""
    slot._replace_spare()
    assert slot._spare is not None
    os.kill(slot._spare.pid, signal.SIGKILL)
    assert slot._spare.wait(PATIENCE_S) is not None
    return slot._spare.pid


def test_slot_that_cannot_start_a_warm_process_ends_its_job_and_runs_the_next(
    work: Work, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\n: > {shlex.quote(str(tmp_path))}/read\nexec {shlex.join(LIGHT)} "$@"\n')
    program.chmod(0o755)
    with work.running(idle_tick_s=3600, keep_warm=True, command=[str(program)]) as slot:
        until((tmp_path / "read").exists)  # the shell has opened the program of the first warm process
        moved = program.rename(tmp_path / "moved")
        assert slot.run(work.light("count", steps=1).id) is JobStatus.SUCCEEDED
        assert warm_pid(slot) is None
        moved.rename(program)
        assert slot.run(work.light("count", steps=1).id) is JobStatus.SUCCEEDED
        assert warm_pid(slot) is not None


def warm_pid(slot: Slot) -> int | None:
    spare = slot._spare
    return None if spare is None else spare.pid


def test_job_that_has_had_its_turn_stops_for_another_owner_s_and_goes_on_after_it(work: Work) -> None:
    long = work.light("count", steps=10**6, owner="alice")
    sent: list[str] = []
    with work.running(max_turn_s=0.1, publish=lambda _, job_id: sent.append(job_id) or False):
        work.until_step(long)
        assert work.get(long).turn_over_at is None  # nobody waits
        other = work.light("count", steps=1, owner="bob")
        work.until(other, JobStatus.SUCCEEDED)
        work.until_step(long, work.get(long).furthest_step + 1, fence=2)
    left = work.get(long)
    assert (left.attempt, left.interruptions) == (0, 1)  # that of the worker's stop, at the end
    assert "Its turn was over" in " ".join(event.message for event in work.events(long))
    assert long.id in sent


def test_turn_is_not_over_before_it_has_lasted_from_the_first_step_that_is_new(work: Work) -> None:
    """Each time, the jobs of two owners repeat a preparation that takes longer than a turn."""
    jobs = [work.light("count", steps=10**6, before=150, owner=owner) for owner in ("alice", "bob")]
    with work.running(max_turn_s=1.0):
        until(lambda: all(work.get(job).fence > 3 for job in jobs))
    for job in jobs:
        ends = [event.at for event in work.events(job) if "Its turn was over" in event.message]
        files = [work.config.jobs_dir / job.id / f"new-{fence}" for fence in (1, 2, 3)]
        lasted = [end - float(file.read_text()) for file, end in zip(files, ends, strict=False)]
        assert min(lasted) >= 1.0


def test_job_whose_process_dies_each_time_fails_when_its_attempts_are_used_up(work: Work) -> None:
    poison, healthy = work.light("die"), work.light("count", steps=1)
    with work.running():
        work.until(poison, JobStatus.FAILED)
        work.until(healthy, JobStatus.SUCCEEDED)
    error = work.error(poison)
    assert error.code == "process_died"
    assert "SIGKILL" in error.message
    assert work.notes().count(f"begun {poison.id} 1") == 1
    assert sum(f"begun {poison.id}" in note for note in work.notes()) == 3


def test_process_that_takes_no_step_is_killed_and_the_attempt_has_failed(work: Work) -> None:
    job = work.light("hang", max_attempts=1)
    with work.running(stall_timeout_s=2.0):
        work.until(job, JobStatus.FAILED)
    assert work.error(job).code == "process_died"


def test_process_that_is_stopped_as_a_whole_is_killed_when_its_lease_is_long_over(work: Work) -> None:
    job = work.light("count", steps=10**6, max_attempts=1, max_interruptions=0)
    with work.running(lease_ttl_s=1.0):
        work.until_step(job)  # until then its supervisor renews the lease
        os.kill(work.process().pid, signal.SIGSTOP)
        work.until(job, JobStatus.FAILED)
    assert (work.error(job).code, work.get(job).attempt) == ("interrupted_too_often", 1)


@pytest.mark.long
def test_process_that_dies_at_a_new_step_each_time_is_begun_again_each_time(work: Work) -> None:
    """Its supervisor has heard of the step, though it did not live to write it down itself."""
    job = work.light("limp", steps=8)
    with work.running(report_every_s=3600.0):
        work.until(job, JobStatus.SUCCEEDED)
    ended = work.get(job)
    assert (ended.result, ended.fence, ended.furthest_step) == ({"counted": 8}, 8, 7)


def test_job_that_has_run_for_as_long_as_it_may_fails_and_can_be_retried(work: Work) -> None:
    job = work.light("count", steps=10**6, max_run_time_s=3.0)
    with work.running():
        work.until(job, JobStatus.FAILED)
        failed = work.get(job)
        assert (work.error(job).code, failed.attempt) == ("run_time_exceeded", 1)
        assert failed.run_time_s >= 3.0
        work.store.jobs.request_retry(job.id)
        until(lambda: work.get(job).fence == 2)
        work.until(job, JobStatus.FAILED)
    again = work.get(job)
    assert 3.0 <= again.run_time_s < failed.run_time_s + 60.0


@pytest.mark.parametrize(
    ("act", "code", "param"), [("want_memory", "out_of_memory", None), ("be_wrong", "nothing_learned", "lr")]
)
def test_error_of_the_job_s_own_fails_it_at_once_with_its_reason(
    work: Work, act: str, code: str, param: str | None
) -> None:
    job = work.light(act)
    with work.running():
        work.until(job, JobStatus.FAILED)
    error = work.error(job)
    assert (error.code, error.param, work.get(job).attempt) == (code, param, 1)


def test_full_disk_pauses_the_job_until_it_is_resumed(work: Work) -> None:
    job = work.light("stumble", error=errno.ENOSPC)
    with work.running():
        work.until(job, JobStatus.PAUSED)
        assert work.pause_reason(job).code == "storage_full"
        assert (work.get(job).attempt, work.get(job).error) == (0, None)
        work.store.jobs.request_resume(job.id)
        work.until(job, JobStatus.SUCCEEDED)
    assert work.get(job).pause_reason is None


def test_broken_disk_lets_the_job_be_tried_again(work: Work) -> None:
    job = work.light("stumble", error=errno.EIO)
    with work.running():
        work.until(job, JobStatus.SUCCEEDED)
    assert work.get(job).attempt == 2


def test_process_that_hears_nothing_is_killed_after_its_grace_and_its_job_released(work: Work) -> None:
    job = work.light("be_deaf")
    with work.running(stop_grace_s=0.5):
        work.until_step(job)
        process = work.process()
        work.store.jobs.request_cancel(job.id)
        work.until(job, JobStatus.CANCELLED)
    assert not is_alive(process)


def test_slot_that_is_stopped_lets_its_job_go_uncounted_and_wakes_another(work: Work) -> None:
    job = work.light("count", steps=10**6)
    woken: list[tuple[object, ...]] = []
    with work.running(publish=lambda *told: woken.append(told)):
        work.until_step(job)
    left = work.get(job)
    assert (left.status, left.attempt, left.interruptions, left.fence) == (JobStatus.QUEUED, 0, 1, 1)
    assert woken[-1][0] == job.kind


def test_process_whose_supervisor_s_pipe_closes_ends_at_once(work: Work) -> None:
    """The pipe is closed as the kernel does it when a supervisor is killed."""
    child, job = by_hand(work, work.light("be_deaf"))
    work.until_step(job)
    assert child._process.stdin is not None
    child._process.stdin.close()
    assert child.wait(60) == Exit.ORPHANED
    child.close()
    assert work.get(job).status is JobStatus.RUNNING


SLOW_START = """
import runpy, time
time.sleep(8)
runpy.run_module("tests.worker.light_process", run_name="__main__", alter_sys=True)
"""


@pytest.mark.long
def test_process_that_takes_longer_than_a_lease_to_start_keeps_its_job(work: Work) -> None:
    job = work.light("count", steps=2)
    with work.running(lease_ttl_s=5.0, command=[sys.executable, "-c", SLOW_START]):
        work.until(job, JobStatus.SUCCEEDED)
    found = work.get(job)
    assert (found.fence, found.interruptions) == (1, 0)


@pytest.mark.long
def test_job_whose_lease_cannot_be_renewed_ends_before_it_does(work: Work, database_url: str) -> None:
    """The database is held by another for longer than the lease."""
    job = work.light("count", steps=10**6)
    with work.running(lease_ttl_s=8.0, store_timeout_s=1.0):
        work.until_step(job)
        before = work.get(job)
        process = work.process(before.fence)
        with held(database_url):
            until(lambda: not is_alive(process))
            ended_at = time.time()
        # It may have renewed once more before the database was held.
        assert ended_at < (before.lease_until or 0.0) + 8.0
        until(lambda: work.get(job).fence > before.fence)
        work.until_step(job)
        found = work.get(job)
        assert found.attempt == 1
        assert found.interruptions > before.interruptions


def test_zombie_that_wakes_after_its_lease_changes_nothing(work: Work) -> None:
    """It was stopped together with its supervisor, as when a machine stalls."""
    zombie, job = by_hand(work, work.light("count", steps=10**6), lease_ttl_s=8.0)
    work.until_step(job)
    os.kill(zombie.pid, signal.SIGSTOP)
    with work.running(lease_ttl_s=8.0):
        work.until_step(job, fence=2)
        before = work.get(job)
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.wait(60) in (Exit.LEASE_LOST, Exit.STORE_AWAY)
        after = work.get(job)
        assert (after.fence, after.status, after.lease_owner) == (2, before.status, before.lease_owner)
        assert after.event_count == before.event_count
    zombie.close()


@pytest.mark.long
def test_process_that_hangs_while_its_job_is_taken_over_is_killed_by_its_supervisor(work: Work) -> None:
    job = work.light("count", steps=150, step_s=0.02)
    with work.running(lease_ttl_s=8.0), work.running(lease_ttl_s=8.0):
        work.until_step(job)
        zombie = work.process()
        end(zombie, signal.SIGSTOP)
        until(lambda: not is_alive(zombie))
        work.until(job, JobStatus.SUCCEEDED)
    ended = work.get(job)
    assert (ended.fence, ended.result) == (2, {"counted": 150})


def test_process_that_a_crashed_worker_has_left_hanging_is_ended_at_the_next_start(work: Work) -> None:
    orphan, job = by_hand(work, work.light("be_deaf"))
    work.until_step(job)
    process, supervisor = orphan.identify(), ended_process()
    assert process is not None
    JobFolder(work.config.jobs_dir, Lease.of(job)).occupy(Occupant(process, supervisor))
    os.kill(orphan.pid, signal.SIGSTOP)
    end_orphans(work.config)
    assert orphan.wait(60) == -signal.SIGKILL
    orphan.close()
    assert not list(occupants(work.config.jobs_dir))


def test_no_process_is_ended_that_only_has_an_orphan_s_number_or_whose_supervisor_lives(work: Work) -> None:
    bystander, job = by_hand(work, work.light("be_deaf"))
    work.until_step(job)
    process, me = bystander.identify(), identify(os.getpid())
    assert process is not None
    assert me is not None
    folder = JobFolder(work.config.jobs_dir, Lease.of(job))
    for occupant in (
        Occupant(replace(process, started="1"), ended_process()),
        Occupant(replace(process, space="another container"), ended_process()),
        Occupant(process, me),
    ):
        folder.occupy(occupant)
        end_orphans(work.config)
        assert bystander.wait(0.1) is None
    bystander.close()


def test_job_whose_id_is_a_path_fails_and_the_slot_takes_the_next(work: Work, tmp_path: Path) -> None:
    after = work.light("count", steps=1)
    with work.store.database.writing() as connection:
        row = connection.execute(select(tables.jobs)).mappings().one()
        hostile = {**row, "id": "../../victim", "created_at": after.created_at - 1}
        connection.execute(insert(tables.jobs).values(hostile))
    with work.running():
        work.until(after, JobStatus.SUCCEEDED)
    failed = work.store.jobs.get("../../victim")
    assert failed.status is JobStatus.FAILED
    assert work.error(failed).code == "files_outside"
    assert not (tmp_path / "victim").exists()


def by_hand(work: Work, job: Job, **changes: Any) -> tuple[ChildProcess, Job]:
    """A job's process without a slot around it, under a configuration with these changes."""
    config = replace(work.config, **{"threads": 0, **changes})
    claimed = work.store.leases.claim(config.kind, "by hand", config.lease_ttl_s)
    assert claimed is not None
    assert claimed.id == job.id
    config.data_dir.mkdir(exist_ok=True)
    child = ChildProcess(LIGHT)
    child.assign(Assignment(config, Lease.of(claimed)).dumps())
    return child, claimed


def ended_process() -> ProcessId:
    """One that is no more."""
    me = identify(os.getpid())
    assert me is not None
    return replace(me, started="0")
