"""Whole workers behind a real broker, with light jobs: Celery's tools see them, and no message does harm."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import redis
from celery import Celery

from sds_clip.app.jobs.wakeups import WakeUps
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store.records import DatasetStatus, Job
from sds_clip.app.store.shares import Weights
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.verdicts import check_of
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.identity import node_name
from sds_clip.worker.valkey import Valkey
from tests.databases import on_both_if_long
from tests.worker.waiting import until
from tests.worker.work import Work

LONG = {"act": "count", "steps": 10**6}


@pytest.fixture
def config(config: WorkerConfig, valkey: Valkey) -> WorkerConfig:
    """Nothing but a message makes this worker run jobs."""
    return replace(
        config, broker_url=valkey.url, threads=0, idle_tick_s=3600, reap_every_s=3600, keep_warm=True
    )


@pytest.fixture
def send(config: WorkerConfig) -> Iterator[Callable[[str], bool]]:
    wake_ups = WakeUps(config.broker_url)
    yield lambda job_id: wake_ups.publish(JobKind.FINETUNE, job_id)
    wake_ups.close()


@pytest.fixture
def celery(valkey: Valkey) -> Iterator[Celery]:
    """Celery's own tools, which know nothing of this program."""
    app = Celery(broker=valkey.url, set_as_current=False)
    yield app
    app.close()


def begin(work: Work, send: Callable[[str], bool]) -> Job:
    """A long job that a task has taken."""
    job = work.submit(LONG)
    assert send(job.id)
    work.until_step(job)
    return job


@on_both_if_long
def test_message_delivered_five_times_runs_the_job_once_and_sigterm_lets_one_go(
    work: Work, send: Callable[[str], bool]
) -> None:
    with work.worker() as worker:
        job = work.light("count", steps=20)
        assert all(send(job.id) for _ in range(5))
        work.until(job, JobStatus.SUCCEEDED)
        long = begin(work, send)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert work.notes() == [f"begun {job.id} 1", f"ended {job.id} 1", f"begun {long.id} 1"]
    assert work.get(long).status is JobStatus.QUEUED


def test_messages_that_are_late_or_not_ours_do_no_harm(
    work: Work, send: Callable[[str], bool], celery: Celery
) -> None:
    with work.worker() as worker:
        cancelled, job = work.submit(LONG), work.light("count", steps=1)
        work.store.jobs.request_cancel(cancelled.id)
        for args in ([cancelled.id], ["job_unknown"], [], [None], [{"a": 1}], [1, 2]):
            celery.send_task("sds_clip.finetune", args=args, queue="finetune")
        celery.send_task("another.task", queue="finetune")
        send(job.id)
        work.until(job, JobStatus.SUCCEEDED)
        assert worker.poll() is None
    assert work.notes() == [f"begun {job.id} 1", f"ended {job.id} 1"]
    assert work.get(cancelled).status is JobStatus.CANCELLED


def envelope(body: bytes = b'[["x"], {}, {}]', headers: object = None, **properties: object) -> bytes:
    """A message as Celery's clients put it into the queue."""
    known = {
        "body_encoding": "base64",
        "delivery_tag": "1",
        "delivery_info": {"exchange": "", "routing_key": ""},
    }
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers or {"task": "sds_clip.finetune", "id": "1"},
        "properties": {**known, **properties},
    }
    return json.dumps(message).encode()


MALFORMED = (
    b"\xff\xfe not JSON",
    b"",
    b"null",
    b"[1, 2]",
    b'"text"',
    b"{}",
    b"[" * 200_000,
    b"x" * 20_000_000,
    envelope(headers=[1]),
    envelope(headers={"task": "sds_clip.finetune"}),
    envelope(headers={"task": "sds_clip.finetune", "id": "1", "timelimit": "x"}),
    envelope(headers={"task": "sds_clip.finetune", "id": "1", "eta": "whenever", "retries": "x"}),
    envelope(b"not JSON"),
    envelope(b'{"a": 1}'),
    envelope(b"[5, {}, {}]"),
    envelope(b"[null, null, null]"),
    envelope(json.dumps([["y" * 20_000_000], {}, {}]).encode()),
    envelope(body_encoding="unknown"),
    envelope(delivery_info={}),
    envelope(delivery_info={"exchange": ""}),
    envelope().replace(b"utf-8", b"klingon"),
    envelope().replace(b"application/json", b"application/x-python-serialize"),
    envelope(b"[]").replace(b"W10=", b"%%%"),
)


def test_malformed_messages_end_no_worker_and_block_no_job(
    work: Work, send: Callable[[str], bool], valkey: Valkey
) -> None:
    with work.worker() as worker, redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        for message in MALFORMED:
            client.lpush("finetune", message)
            job = work.light("count", steps=1)
            assert send(job.id)
            until(lambda: worker.poll() is not None or work.get(job).status is JobStatus.SUCCEEDED)  # noqa: B023
            assert worker.poll() is None, message[:100]
        until(lambda: (client.llen("finetune"), client.hlen("unacked")) == (0, 0))


@on_both_if_long
def test_worker_runs_jobs_while_the_broker_is_away_and_tasks_when_it_is_back(
    work: Work, send: Callable[[str], bool], valkey: Valkey
) -> None:
    with work.worker(idle_tick_s=0.2) as worker:
        work.until(work.light("count", steps=1), JobStatus.SUCCEEDED)
        valkey.stop()
        job = work.light("count", steps=5)
        assert not send(job.id)
        work.until(job, JobStatus.SUCCEEDED)
        valkey.start()
        assert send(job.id)
        until(lambda: waiting(valkey) == 0)
        assert worker.poll() is None


@on_both_if_long
def test_broker_killed_under_a_task_neither_ends_its_job_nor_begins_it_twice(
    work: Work, send: Callable[[str], bool], valkey: Valkey
) -> None:
    with work.worker(idle_tick_s=0.2) as worker:
        job = work.light("count", steps=300)
        assert send(job.id)
        work.until_step(job)
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGKILL)
        until(lambda: not valkey.is_running())
        killed_at = work.get(job).step
        until(lambda: work.get(job).step > killed_at)
        valkey.start()
        work.until(job, JobStatus.SUCCEEDED)
        assert worker.poll() is None
    ended = work.get(job)
    assert (ended.fence, ended.attempt, ended.interruptions) == (1, 1, 0)
    assert work.notes() == [f"begun {job.id} 1", f"ended {job.id} 1"]


def test_jobs_whose_messages_were_lost_run_once_each(work: Work) -> None:
    """Nobody has sent any; a slot's own message may come after the slot has begun without it."""
    jobs = [work.light("count", steps=10) for _ in range(2)]
    with work.worker(idle_tick_s=0.5):
        for job in jobs:
            work.until(job, JobStatus.SUCCEEDED)
    assert work.notes() == [f"{what} {job.id} 1" for job in jobs for what in ("begun", "ended")]


def test_worker_at_work_leaves_one_message_for_a_job_that_waits_however_long(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Job | None] = []
    next_due = work.store.leases.next_due

    def look(kind: JobKind, weights: Weights, devices: int) -> Job | None:
        looks.append(next_due(kind, weights, devices))
        return looks[-1]

    monkeypatch.setattr(work.store.leases, "next_due", look)
    wake_ups, long = WakeUps(work.config.broker_url), work.submit(LONG)
    slot = work.running(idle_tick_s=0.02, publish=wake_ups.publish)
    with ThreadPoolExecutor() as threads, slot as at_work:
        threads.submit(at_work.run, long.id)
        work.until_step(long)
        job = work.submit(LONG)
        until(lambda: [each.id for each in looks if each is not None].count(job.id) > 50)
        assert waiting_for(work.config).count(job.id) == 1
    wake_ups.close()


@pytest.mark.long
def test_worker_that_runs_a_job_without_a_task_leaves_messages_to_idle_workers(
    work: Work, send: Callable[[str], bool], valkey: Valkey, celery: Celery
) -> None:
    valkey.stop()
    long = work.submit(LONG)
    with work.worker(idle_tick_s=0.2) as busy:
        work.until_step(long)
        valkey.start()
        name, job = node_name(busy.pid, "finetune"), work.light("count", steps=1)
        assert send(job.id)

        def has_taken_it() -> bool:
            active = celery.control.inspect([name], timeout=5).active() or {name: []}
            return [job.id] in [task["args"] for task in active[name]]

        until(has_taken_it)
        with work.worker():  # it does not look by itself
            work.until(job, JobStatus.SUCCEEDED)
            # Here, since the end of this worker's context kills every job's process.
            assert work.get(long).status is JobStatus.RUNNING


def test_celery_s_tools_show_the_job_that_runs_and_not_the_one_that_was_told_of(
    work: Work, send: Callable[[str], bool], celery: Celery
) -> None:
    """Two hundred messages of one owner wait in the queue when another owner's job comes."""
    first = work.submit(LONG, owner="alice")
    told = [work.light("count", steps=1, owner="alice") for _ in range(200)]
    with following(celery) as seen, work.worker() as worker:
        assert send(first.id)
        work.until_step(first)
        assert all(send(job.id) for job in told)
        other = work.submit(LONG, owner="bob")
        assert send(other.id)
        work.store.jobs.request_cancel(first.id)
        work.until_step(other)
        assert [work.get(job).fence for job in told] == [0] * 200
        active = celery.control.inspect(timeout=5).active()
        assert [task["args"] for task in active[node_name(worker.pid, "finetune")]] == [[other.id]]
        until(
            lambda: any(each["type"] == "task-started" and other.id in each.get("args", "") for each in seen)
        )


@pytest.mark.long
def test_inspect_active_shows_which_job_runs_where_and_control_shutdown_lets_it_go(
    work: Work, send: Callable[[str], bool], celery: Celery
) -> None:
    with work.worker() as worker:
        job = begin(work, send)
        name = node_name(worker.pid, "finetune")
        active = celery.control.inspect(timeout=5).active()
        assert [(task["name"], task["args"]) for task in active[name]] == [("sds_clip.finetune", [job.id])]
        assert active[name][0]["time_start"] is not None
        celery.control.shutdown(destination=[name])
        assert worker.wait(60) == 0
    left = work.get(job)
    assert (left.status, left.attempt, left.interruptions) == (JobStatus.QUEUED, 0, 1)
    kept = int((work.config.jobs_dir / job.id / "count").read_text())
    assert left.step <= kept
    assert waiting_for(work.config) == [job.id]  # a message for whoever takes over
    with work.worker() as worker:
        work.until_step(job, kept + 1, fence=2)


def test_training_job_holds_up_no_check_and_celery_s_tools_name_both(
    work: Work, send: Callable[[str], bool], celery: Celery
) -> None:
    """The second slot of a worker takes a check's message while the first one is busy, and leaves the others."""
    with work.worker(checks_datasets=True) as worker:
        long, next_one = begin(work, send), work.light("count", steps=1)
        assert send(next_one.id)
        held = work.store.datasets.add(format="pairs", source={"until": "let go"})
        [check] = work.store.datasets.enlist_checks(FORMATS)
        celery.send_task("sds_clip.check", args=[check.id], queue="check")
        work.until_step(check, 0, fence=1)
        [active] = (celery.control.inspect(timeout=5).active() or {}).values()
        shown = {(task["name"], *task["args"]) for task in active}
        assert shown == {("sds_clip.finetune", long.id), ("sds_clip.check", check.id)}
        assert waiting_for(work.config) == [next_one.id]
        (work.config.data_dir / "let go").touch()
        until(lambda: work.store.datasets.get(held.id).status is DatasetStatus.READY)
        assert work.get(long).status is JobStatus.RUNNING
        assert work.get(next_one).fence == 0
        assert worker.poll() is None


def test_message_of_a_new_data_set_has_it_checked_at_once(work: Work, celery: Celery) -> None:
    """The worker looks for itself only when it starts."""
    with work.worker(checks_datasets=True) as worker:
        name = node_name(worker.pid, "finetune")
        until(lambda: celery.control.inspect([name], timeout=5).active() is not None)
        added = work.store.datasets.add(format="pairs", source={})
        assert work.store.datasets.lack_checks(FORMATS)
        celery.send_task("sds_clip.check", args=[check_of(added.id)], queue="check")
        until(lambda: work.store.datasets.get(added.id).status is DatasetStatus.READY)


def test_worker_without_a_broker_finds_a_check_by_itself(work: Work) -> None:
    added = work.store.datasets.add(format="pairs", source={})
    with work.worker(checks_datasets=True, idle_tick_s=0.2, broker_url="redis://127.0.0.1:1"):
        until(lambda: work.store.datasets.get(added.id).status is DatasetStatus.READY)


def test_events_tell_when_the_job_is_received_begun_and_ended(
    work: Work, send: Callable[[str], bool], celery: Celery
) -> None:
    with following(celery) as seen, work.worker():
        job = work.light("count", steps=5)
        send(job.id)
        until(lambda: named(seen, "task-succeeded", job))
        kinds = ["task-received", "task-started", "task-succeeded"]
        assert [event["type"] for event in seen if event["type"] in kinds] == kinds
        assert named(seen, "task-succeeded", job)["result"] == "'succeeded'"


def test_flower_shows_the_job(work: Work, send: Callable[[str], bool]) -> None:
    with flower(work.config.broker_url) as url, work.worker() as worker:
        job = begin(work, send)

        def shown() -> bool:
            tasks: dict[str, dict[str, Any]] = httpx.get(f"{url}/api/tasks", timeout=60).json()
            return [
                (task["state"], task["worker"]) for task in tasks.values() if job.id in (task["args"] or "")
            ] == [("STARTED", node_name(worker.pid, "finetune"))]

        until(shown)


@contextmanager
def flower(broker_url: str) -> Iterator[str]:
    """Flower in a process of its own, on this machine's loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--address=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-b", broker_url, "flower", *options],
        env=os.environ | {"FLOWER_UNAUTHENTICATED_API": "true"},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None
        try:
            return httpx.get(f"{url}/api/tasks", timeout=60).is_success
        except httpx.TransportError:
            return False

    try:
        until(answers)
        yield url
    finally:
        process.kill()
        process.wait()


@contextmanager
def following(celery: Celery) -> Iterator[list[dict[str, Any]]]:
    """The events that workers send, from here on."""
    seen: list[dict[str, Any]] = []
    with celery.connection() as connection:
        receiver = celery.events.Receiver(connection, handlers={"*": seen.append})
        thread = threading.Thread(target=receiver.capture, kwargs={"wakeup": False})
        thread.start()
        yield seen
        receiver.should_stop = True
        thread.join()


def named(seen: list[dict[str, Any]], kind: str, job: Job) -> dict[str, Any] | None:
    """The event of a kind of the task that names a job."""
    tasks = {event["uuid"] for event in seen if event["type"] == "task-received" and job.id in event["args"]}
    return next((event for event in seen if event["type"] == kind and event["uuid"] in tasks), None)


def waiting(valkey: Valkey) -> int:
    with redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        return int(client.llen("finetune"))  # type: ignore[arg-type]


def waiting_for(config: WorkerConfig) -> list[str]:
    """The jobs that messages in the queue name."""
    with redis.Redis.from_url(config.broker_url.replace("redis+socket://", "unix://")) as client:
        messages = client.lrange("finetune", 0, -1)
    return [json.loads(message)["headers"]["argsrepr"].strip("[]'") for message in messages]  # type: ignore[union-attr]
