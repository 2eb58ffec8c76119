"""A slot and the processes of light jobs: what becomes of a job, however its process ends."""

import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import insert, select

from sds_clip.app.store import Store, tables
from sds_clip.app.store.records import Job, Lease
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.folders import JobFolder, Occupant, occupants
from sds_clip.worker.identity import ProcessId, identify, is_alive
from sds_clip.worker.protocol import Assignment, Exit
from sds_clip.worker.slot import Slot, end_orphans
from sds_clip.worker.supervised import ChildProcess
from tests.databases import held, on_both_if_long
from tests.worker.waiting import LIGHT, PATIENCE_S, Running, end, job_process, notes, until, until_status

Submit = Callable[..., Job]
pytestmark = on_both_if_long


@pytest.fixture
def config(config: WorkerConfig) -> WorkerConfig:
    return replace(config, threads=0)


def running(config: WorkerConfig, store: Store, **options: object) -> Running:
    return Running(config, store, command=LIGHT, **options)


def test_jobs_run_one_after_another_oldest_first(config: WorkerConfig, store: Store, submit: Submit) -> None:
    jobs = [submit({"act": "count", "steps": 2}) for _ in range(2)]
    with running(config, store):
        until_status(store, jobs[1].id, JobStatus.SUCCEEDED)
    expected = [f"{what} {job.id} 1" for job in jobs for what in ("begun", "ended")]
    assert notes(config) == expected
    first = store.jobs.get(jobs[0].id)
    assert (first.result, first.attempt, first.step, first.steps) == ({"counted": 2}, 1, 2, 2)
    assert not list(config.jobs_dir.glob("*/*/process.json"))


def test_slot_that_is_told_of_a_job_runs_it_at_once_and_a_warm_process_does_it(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    patient = replace(config, idle_tick_s=3600, keep_warm=True)
    with running(patient, store) as slot:
        assert slot._spare is not None
        warm = slot._spare.pid
        job = submit({"act": "count", "steps": 1})
        assert slot.run(job.id) is JobStatus.SUCCEEDED
    assert (config.data_dir / "notes").read_text().split()[3] == str(warm)


def test_warm_process_that_dies_is_replaced_before_the_next_job(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    with running(replace(config, keep_warm=True), store) as slot:
        first = warm_pid(slot)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        until(lambda: warm_pid(slot) not in (None, first))
        second = warm_pid(slot)
        job = submit({"act": "count", "steps": 1})
        until_status(store, job.id, JobStatus.SUCCEEDED)
    assert (config.data_dir / "notes").read_text().split()[3] == str(second)


def test_warm_process_that_dies_again_is_not_replaced_at_once(config: WorkerConfig, store: Store) -> None:
    patient = replace(config, idle_tick_s=3600, keep_warm=True)
    with running(patient, store) as slot:
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
    config: WorkerConfig, store: Store, submit: Submit, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\n: > {shlex.quote(str(tmp_path))}/read\nexec {shlex.join(LIGHT)} "$@"\n')
    program.chmod(0o755)
    patient = replace(config, idle_tick_s=3600, keep_warm=True)
    with Running(patient, store, command=[str(program)]) as slot:
        until((tmp_path / "read").exists)  # the shell has opened the program of the first warm process
        moved = program.rename(tmp_path / "moved")
        assert slot.run(submit({"act": "count", "steps": 1}).id) is JobStatus.SUCCEEDED
        assert warm_pid(slot) is None
        moved.rename(program)
        assert slot.run(submit({"act": "count", "steps": 1}).id) is JobStatus.SUCCEEDED
        assert warm_pid(slot) is not None


def warm_pid(slot: Slot) -> int | None:
    spare = slot._spare
    return None if spare is None else spare.pid


def test_two_slots_that_race_for_a_job_run_it_once(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    patient = replace(config, idle_tick_s=3600)
    with running(patient, store) as one, running(patient, store) as other, ThreadPoolExecutor() as threads:
        job = submit({"act": "count", "steps": 20})
        told = list(threads.map(lambda slot: slot.run(job.id), (one, other, one, other)))
    assert told.count(JobStatus.SUCCEEDED) == 1
    assert store.jobs.get(job.id).status is JobStatus.SUCCEEDED
    assert notes(config) == [f"begun {job.id} 1", f"ended {job.id} 1"]


def test_slot_sends_a_task_for_a_job_that_it_finds_and_runs_it_without_one_where_none_comes(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    sent: list[str] = []

    def publish(_kind: JobKind, job_id: str) -> bool:
        sent.append(job_id)
        return True

    job = submit({"act": "count", "steps": 1})
    with running(config, store, publish=publish):
        until_status(store, job.id, JobStatus.SUCCEEDED)
    assert sent == [job.id]


def test_slot_at_work_sends_a_task_for_the_job_that_waits_behind_it(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    """Its message may be lost, and other workers may be idle."""
    long, waiting = submit({"act": "count", "steps": 10**6}), submit({"act": "count", "steps": 1})
    sent: list[str] = []

    def publish(_kind: JobKind, job_id: str) -> bool:
        sent.append(job_id)
        return job_id == waiting.id

    with ThreadPoolExecutor() as threads, running(config, store, publish=publish) as slot:
        task = threads.submit(slot.run, long.id)
        until(lambda: waiting.id in sent)
        store.jobs.request_cancel(long.id)
        assert task.result(600) is JobStatus.CANCELLED
        until_status(store, waiting.id, JobStatus.SUCCEEDED)


@pytest.mark.parametrize("job_id", ["job_unknown", ""])
def test_slot_that_is_told_of_a_job_that_is_not_there_does_nothing(
    job_id: str, config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "count", "steps": 1})
    with running(replace(config, idle_tick_s=3600), store) as slot:
        assert slot.run(job.id) is JobStatus.SUCCEEDED
        assert slot.run(job.id) == "nothing to do"
        assert slot.run(job_id) == "nothing to do"


def test_job_whose_process_dies_each_time_fails_when_its_attempts_are_used_up(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    poison, healthy = submit({"act": "die"}), submit({"act": "count", "steps": 1})
    with running(config, store):
        until_status(store, poison.id, JobStatus.FAILED)
        until_status(store, healthy.id, JobStatus.SUCCEEDED)
    failed = store.jobs.get(poison.id)
    assert failed.error is not None
    assert failed.error.code == "process_died"
    assert "SIGKILL" in failed.error.message
    assert notes(config).count(f"begun {poison.id} 1") == 1
    assert sum(f"begun {poison.id}" in note for note in notes(config)) == 3


def test_process_that_takes_no_step_is_killed_and_the_attempt_has_failed(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "hang"}, max_attempts=1)
    with running(replace(config, stall_timeout_s=2.0), store):
        until_status(store, job.id, JobStatus.FAILED)
    error = store.jobs.get(job.id).error
    assert error is not None
    assert error.code == "process_died"


def test_process_that_is_stopped_as_a_whole_is_killed_when_its_lease_is_long_over(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "count", "steps": 10**6}, max_attempts=1, max_interruptions=0)
    with running(replace(config, lease_ttl_s=1.0), store):
        until(lambda: store.jobs.get(job.id).step > 0)  # until then its supervisor renews the lease
        os.kill(job_process(config).pid, signal.SIGSTOP)
        until_status(store, job.id, JobStatus.FAILED)
    failed = store.jobs.get(job.id)
    assert failed.error is not None
    assert (failed.error.code, failed.attempt) == ("interrupted_too_often", 1)


@pytest.mark.long
def test_process_that_dies_at_a_new_step_each_time_is_begun_again_each_time(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    """Its supervisor has heard of the step, though it did not live to write it down itself."""
    job = submit({"act": "limp", "steps": 8})
    with running(replace(config, report_every_s=3600.0), store):
        until_status(store, job.id, JobStatus.SUCCEEDED)
    ended = store.jobs.get(job.id)
    assert (ended.result, ended.fence, ended.furthest_step) == ({"counted": 8}, 8, 7)


def test_job_that_has_run_for_as_long_as_it_may_fails_and_can_be_retried(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "count", "steps": 10**6}, max_run_time_s=3.0)
    with running(config, store):
        until_status(store, job.id, JobStatus.FAILED)
        failed = store.jobs.get(job.id)
        assert failed.error is not None
        assert (failed.error.code, failed.attempt) == ("run_time_exceeded", 1)
        assert failed.run_time_s >= 3.0
        store.jobs.request_retry(job.id)
        until(lambda: store.jobs.get(job.id).fence == 2)
        until_status(store, job.id, JobStatus.FAILED)
    again = store.jobs.get(job.id)
    assert 3.0 <= again.run_time_s < failed.run_time_s + 60.0


def test_process_that_is_deaf_at_the_end_of_its_running_time_is_killed(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "be_deaf"}, max_run_time_s=1.0)
    with running(replace(config, stop_grace_s=0.5), store):
        until_status(store, job.id, JobStatus.FAILED)
    error = store.jobs.get(job.id).error
    assert error is not None
    assert error.code == "run_time_exceeded"


@pytest.mark.parametrize(
    ("act", "code", "param"), [("want_memory", "out_of_memory", None), ("be_wrong", "nothing_learned", "lr")]
)
def test_error_of_the_job_s_own_fails_it_at_once_with_its_reason(
    act: str, code: str, param: str | None, config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": act})
    with running(config, store):
        until_status(store, job.id, JobStatus.FAILED)
    failed = store.jobs.get(job.id)
    assert failed.error is not None
    assert (failed.error.code, failed.error.param, failed.attempt) == (code, param, 1)


def test_full_disk_pauses_the_job_until_it_is_resumed(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "stumble", "error": errno.ENOSPC})
    with running(config, store):
        until_status(store, job.id, JobStatus.PAUSED)
        paused = store.jobs.get(job.id)
        assert paused.pause_reason is not None
        assert (paused.pause_reason.code, paused.attempt, paused.error) == ("storage_full", 0, None)
        store.jobs.request_resume(job.id)
        until_status(store, job.id, JobStatus.SUCCEEDED)
    assert store.jobs.get(job.id).pause_reason is None


def test_broken_disk_lets_the_job_be_tried_again(config: WorkerConfig, store: Store, submit: Submit) -> None:
    job = submit({"act": "stumble", "error": errno.EIO})
    with running(config, store):
        until_status(store, job.id, JobStatus.SUCCEEDED)
    assert store.jobs.get(job.id).attempt == 2


def test_cancelled_job_stops_and_leaves_the_slot_free(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job, next_job = submit({"act": "count", "steps": 10**6}), submit({"act": "count", "steps": 1})
    with running(config, store):
        until(lambda: store.jobs.get(job.id).step > 0)
        assert store.jobs.request_cancel(job.id).status is JobStatus.CANCELLING
        until_status(store, job.id, JobStatus.CANCELLED)
        until_status(store, next_job.id, JobStatus.SUCCEEDED)
    assert store.jobs.get(job.id).error is None
    assert store.events.transitions(job.id)[-1].message == "Stopped: it was cancelled."


def test_paused_job_goes_on_where_it_was_once_it_is_resumed(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "count", "steps": 150})
    with running(config, store):
        until(lambda: store.jobs.get(job.id).step > 0)
        store.jobs.request_pause(job.id)
        until(lambda: store.jobs.get(job.id).status is JobStatus.PAUSED)
        paused = store.jobs.get(job.id)
        assert 0 < paused.step < 150
        assert store.events.transitions(job.id)[-1].message == "Stopped: it was asked to pause."
        assert notes(config) == [f"begun {job.id} 1"]
        store.jobs.request_resume(job.id)
        until_status(store, job.id, JobStatus.SUCCEEDED)
    ended = store.jobs.get(job.id)
    assert (ended.result, ended.fence, ended.attempt) == ({"counted": 150}, 2, 1)


def test_process_that_hears_nothing_is_killed_after_its_grace_and_its_job_released(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "be_deaf"})
    with running(replace(config, stop_grace_s=0.5), store):
        until(lambda: store.jobs.get(job.id).step > 0)
        process = job_process(config)
        store.jobs.request_cancel(job.id)
        until_status(store, job.id, JobStatus.CANCELLED)
    assert not is_alive(process)


def test_slot_that_is_stopped_lets_its_job_go_uncounted_and_wakes_another(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "count", "steps": 10**6})
    woken: list[tuple[object, ...]] = []
    with running(config, store, publish=lambda *told: woken.append(told)):
        until(lambda: store.jobs.get(job.id).step > 0)
    left = store.jobs.get(job.id)
    assert (left.status, left.attempt, left.interruptions, left.fence) == (JobStatus.QUEUED, 0, 1, 1)
    assert woken[-1][0] == job.kind


def test_process_whose_supervisor_s_pipe_closes_ends_at_once(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    """The pipe is closed as the kernel does it when a supervisor is killed."""
    child, job = by_hand(config, store, submit({"act": "be_deaf"}))
    until(lambda: store.jobs.get(job.id).step > 0)
    assert child._process.stdin is not None
    child._process.stdin.close()
    assert child.wait(60) == Exit.ORPHANED
    child.close()
    assert store.jobs.get(job.id).status is JobStatus.RUNNING


SLOW_START = """
import runpy, time
time.sleep(8)
runpy.run_module("tests.worker.light_process", run_name="__main__", alter_sys=True)
"""


@pytest.mark.long
def test_process_that_takes_longer_than_a_lease_to_start_keeps_its_job(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    job = submit({"act": "count", "steps": 2})
    with Running(replace(config, lease_ttl_s=5.0), store, command=[sys.executable, "-c", SLOW_START]):
        until_status(store, job.id, JobStatus.SUCCEEDED)
    found = store.jobs.get(job.id)
    assert (found.fence, found.interruptions) == (1, 0)


@pytest.mark.long
def test_job_whose_lease_cannot_be_renewed_ends_before_it_does(
    config: WorkerConfig, store: Store, submit: Submit, database_url: str
) -> None:
    """The database is held by another for longer than the lease."""
    job = submit({"act": "count", "steps": 10**6})
    short = replace(config, lease_ttl_s=8.0, store_timeout_s=1.0)
    with running(short, store):
        until(lambda: store.jobs.get(job.id).step > 0)
        before = store.jobs.get(job.id)
        process = job_process(config, before.fence)
        with held(database_url):
            until(lambda: not is_alive(process))
            ended_at = time.time()
        assert before.lease_until is not None
        assert (
            ended_at < before.lease_until + 8.0
        )  # it may have renewed once more before the database was held
        until(lambda: store.jobs.get(job.id).fence > before.fence)
        until(lambda: store.jobs.get(job.id).step > 0)
        found = store.jobs.get(job.id)
        assert found.attempt == 1
        assert found.interruptions > before.interruptions


def test_zombie_that_wakes_after_its_lease_changes_nothing(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    """It was stopped together with its supervisor, as when a machine stalls."""
    short = replace(config, lease_ttl_s=8.0)
    zombie, job = by_hand(short, store, submit({"act": "count", "steps": 10**6}))
    until(lambda: store.jobs.get(job.id).step > 0)
    os.kill(zombie.pid, signal.SIGSTOP)
    with running(short, store):
        until(lambda: store.jobs.get(job.id).fence == 2)
        until(lambda: store.jobs.get(job.id).step > 0)
        before = store.jobs.get(job.id)
        os.kill(zombie.pid, signal.SIGCONT)
        assert zombie.wait(60) in (Exit.LEASE_LOST, Exit.STORE_AWAY)
        after = store.jobs.get(job.id)
        assert (after.fence, after.status, after.lease_owner) == (2, before.status, before.lease_owner)
        assert after.event_count == before.event_count
    zombie.close()


@pytest.mark.long
def test_process_that_hangs_while_its_job_is_taken_over_is_killed_by_its_supervisor(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    short = replace(config, lease_ttl_s=8.0)
    job = submit({"act": "count", "steps": 150, "step_s": 0.02})
    with running(short, store), running(short, store):
        until(lambda: store.jobs.get(job.id).step > 0)
        zombie = job_process(config)
        end(zombie, signal.SIGSTOP)
        until(lambda: not is_alive(zombie))
        until_status(store, job.id, JobStatus.SUCCEEDED)
    ended = store.jobs.get(job.id)
    assert (ended.fence, ended.result) == (2, {"counted": 150})


def test_process_that_a_crashed_worker_has_left_hanging_is_ended_at_the_next_start(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    orphan, job = by_hand(config, store, submit({"act": "be_deaf"}))
    until(lambda: store.jobs.get(job.id).step > 0)
    process, supervisor = orphan.identify(), ended_process()
    assert process is not None
    JobFolder(config.jobs_dir, Lease.of(job)).occupy(Occupant(process, supervisor))
    os.kill(orphan.pid, signal.SIGSTOP)
    end_orphans(config)
    assert orphan.wait(60) == -signal.SIGKILL
    orphan.close()
    assert not list(occupants(config.jobs_dir))


def test_no_process_is_ended_that_only_has_an_orphan_s_number_or_whose_supervisor_lives(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    bystander, job = by_hand(config, store, submit({"act": "be_deaf"}))
    until(lambda: store.jobs.get(job.id).step > 0)
    process, me = bystander.identify(), identify(os.getpid())
    assert process is not None
    assert me is not None
    folder = JobFolder(config.jobs_dir, Lease.of(job))
    for occupant in (
        Occupant(replace(process, started="1"), ended_process()),
        Occupant(replace(process, space="another container"), ended_process()),
        Occupant(process, me),
    ):
        folder.occupy(occupant)
        end_orphans(config)
        assert bystander.wait(0.1) is None
    bystander.close()


def test_job_whose_id_is_a_path_fails_and_the_slot_takes_the_next(
    config: WorkerConfig, store: Store, submit: Submit, tmp_path: Path
) -> None:
    after = submit({"act": "count", "steps": 1})
    with store.database.writing() as connection:
        row = connection.execute(select(tables.jobs)).mappings().one()
        hostile = {**row, "id": "../../victim", "created_at": after.created_at - 1}
        connection.execute(insert(tables.jobs).values(hostile))
    with running(config, store):
        until_status(store, after.id, JobStatus.SUCCEEDED)
    failed = store.jobs.get("../../victim")
    assert failed.status is JobStatus.FAILED
    assert failed.error is not None
    assert failed.error.code == "files_outside"
    assert not (tmp_path / "victim").exists()


def by_hand(config: WorkerConfig, store: Store, job: Job) -> tuple[ChildProcess, Job]:
    """A job's process without a slot around it."""
    claimed = store.leases.claim(config.kind, "by hand", config.lease_ttl_s)
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
