"""Whole workers behind a real broker, with light jobs: Celery's tools see them, and no message does harm."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from celery import Celery

from sds_clip.app.jobs.wakeups import WakeUps
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.identity import node_name
from sds_clip.worker.valkey import Valkey
from tests.databases import on_both_if_long
from tests.worker.waiting import LIGHT, Running, WorkerProcess, notes, reaper, until, until_status

Submit = Callable[..., Job]
LONG = {"act": "count", "steps": 10**6}


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with tempfile.TemporaryDirectory(prefix="vk-") as folder, Valkey(Path(folder) / "v") as started:
        yield started


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


def begin(store: Store, submit: Submit, send: Callable[[str], bool]) -> Job:
    """A long job that a task has taken."""
    job = submit(LONG)
    assert send(job.id)
    until(lambda: store.jobs.get(job.id).step > 0)
    return job


@on_both_if_long
def test_message_delivered_five_times_runs_the_job_once_and_sigterm_lets_one_go(
    config: WorkerConfig, store: Store, submit: Submit, send: Callable[[str], bool]
) -> None:
    with WorkerProcess(config) as worker:
        job = submit({"act": "count", "steps": 20})
        assert all(send(job.id) for _ in range(5))
        until_status(store, job.id, JobStatus.SUCCEEDED)
        long = begin(store, submit, send)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert notes(config) == [f"begun {job.id} 1", f"ended {job.id} 1", f"begun {long.id} 1"]
    assert store.jobs.get(long.id).status is JobStatus.QUEUED


def test_messages_that_are_late_or_not_ours_do_no_harm(
    config: WorkerConfig, store: Store, submit: Submit, send: Callable[[str], bool], celery: Celery
) -> None:
    with WorkerProcess(config) as worker:
        cancelled, job = submit(LONG), submit({"act": "count", "steps": 1})
        store.jobs.request_cancel(cancelled.id)
        for args in ([cancelled.id], ["job_unknown"], [], [None], [{"a": 1}], [1, 2]):
            celery.send_task("sds_clip.finetune", args=args, queue="finetune")
        celery.send_task("another.task", queue="finetune")
        send(job.id)
        until_status(store, job.id, JobStatus.SUCCEEDED)
        assert worker.poll() is None
    assert notes(config) == [f"begun {job.id} 1", f"ended {job.id} 1"]
    assert store.jobs.get(cancelled.id).status is JobStatus.CANCELLED


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
    config: WorkerConfig, store: Store, submit: Submit, send: Callable[[str], bool], valkey: Valkey
) -> None:
    with WorkerProcess(config) as worker, redis.Redis(unix_socket_path=str(valkey.socket)) as client:
        for message in MALFORMED:
            client.lpush("finetune", message)
            job = submit({"act": "count", "steps": 1})
            assert send(job.id)
            until(lambda: worker.poll() is not None or store.jobs.get(job.id).status is JobStatus.SUCCEEDED)  # noqa: B023
            assert worker.poll() is None, message[:100]
        assert (client.llen("finetune"), client.hlen("unacked")) == (0, 0)


@on_both_if_long
def test_worker_runs_jobs_while_the_broker_is_away_and_tasks_when_it_is_back(
    config: WorkerConfig, store: Store, submit: Submit, send: Callable[[str], bool], valkey: Valkey
) -> None:
    with WorkerProcess(replace(config, idle_tick_s=0.2)) as worker:
        until_status(store, submit({"act": "count", "steps": 1}).id, JobStatus.SUCCEEDED)
        valkey.stop()
        job = submit({"act": "count", "steps": 5})
        assert not send(job.id)
        until_status(store, job.id, JobStatus.SUCCEEDED)
        valkey.start()
        assert send(job.id)
        until(lambda: waiting(valkey) == 0)
        assert worker.poll() is None


@on_both_if_long
def test_broker_killed_under_a_task_neither_ends_its_job_nor_begins_it_twice(
    config: WorkerConfig, store: Store, submit: Submit, send: Callable[[str], bool], valkey: Valkey
) -> None:
    with WorkerProcess(replace(config, idle_tick_s=0.2)) as worker:
        job = submit({"act": "count", "steps": 300})
        assert send(job.id)
        until(lambda: store.jobs.get(job.id).step > 0)
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGKILL)
        until(lambda: not valkey.is_running())
        killed_at = store.jobs.get(job.id).step
        until(lambda: store.jobs.get(job.id).step > killed_at)
        valkey.start()
        until_status(store, job.id, JobStatus.SUCCEEDED)
        assert worker.poll() is None
    ended = store.jobs.get(job.id)
    assert (ended.fence, ended.attempt, ended.interruptions) == (1, 1, 0)
    assert notes(config) == [f"begun {job.id} 1", f"ended {job.id} 1"]


def test_jobs_whose_messages_were_lost_run_once_each(
    config: WorkerConfig, store: Store, submit: Submit
) -> None:
    """Nobody has sent any; a slot's own message may come after the slot has begun without it."""
    jobs = [submit({"act": "count", "steps": 10}) for _ in range(2)]
    with WorkerProcess(replace(config, idle_tick_s=0.5)):
        for job in jobs:
            until_status(store, job.id, JobStatus.SUCCEEDED)
    assert notes(config) == [f"{what} {job.id} 1" for job in jobs for what in ("begun", "ended")]


def test_worker_at_work_leaves_one_message_for_a_job_that_waits_however_long(
    config: WorkerConfig, store: Store, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[Job | None] = []
    next_due = store.leases.next_due

    def look(kind: JobKind) -> Job | None:
        looks.append(next_due(kind))
        return looks[-1]

    monkeypatch.setattr(store.leases, "next_due", look)
    wake_ups, long = WakeUps(config.broker_url), submit(LONG)
    slot = Running(replace(config, idle_tick_s=0.02), store, publish=wake_ups.publish, command=LIGHT)
    with ThreadPoolExecutor() as threads, slot as at_work:
        threads.submit(at_work.run, long.id)
        until(lambda: store.jobs.get(long.id).step > 0)
        job = submit(LONG)
        until(lambda: [each.id for each in looks if each is not None].count(job.id) > 50)
        assert waiting_for(config).count(job.id) == 1
    wake_ups.close()


@pytest.mark.long
def test_worker_that_runs_a_job_without_a_task_leaves_messages_to_idle_workers(
    config: WorkerConfig,
    store: Store,
    submit: Submit,
    send: Callable[[str], bool],
    valkey: Valkey,
    celery: Celery,
) -> None:
    valkey.stop()
    long = submit(LONG)
    with WorkerProcess(replace(config, idle_tick_s=0.2)) as busy:
        until(lambda: store.jobs.get(long.id).step > 0)
        valkey.start()
        name, job = node_name(busy.pid, "finetune"), submit({"act": "count", "steps": 1})
        assert send(job.id)

        def has_taken_it() -> bool:
            active = celery.control.inspect([name], timeout=5).active() or {name: []}
            return [job.id] in [task["args"] for task in active[name]]

        until(has_taken_it)
        with WorkerProcess(config):  # it does not look by itself
            until_status(store, job.id, JobStatus.SUCCEEDED)
            # Here, since the end of this worker's context kills every job's process.
            assert store.jobs.get(long.id).status is JobStatus.RUNNING


@pytest.mark.long
def test_inspect_active_shows_which_job_runs_where_and_control_shutdown_lets_it_go(
    config: WorkerConfig, store: Store, submit: Submit, send: Callable[[str], bool], celery: Celery
) -> None:
    with WorkerProcess(config) as worker:
        job = begin(store, submit, send)
        name = node_name(worker.pid, "finetune")
        active = celery.control.inspect(timeout=5).active()
        assert [(task["name"], task["args"]) for task in active[name]] == [("sds_clip.finetune", [job.id])]
        assert active[name][0]["time_start"] is not None
        celery.control.shutdown(destination=[name])
        assert worker.wait(60) == 0
    left = store.jobs.get(job.id)
    assert (left.status, left.attempt, left.interruptions) == (JobStatus.QUEUED, 0, 1)
    kept = int((config.jobs_dir / job.id / "count").read_text())
    assert left.step <= kept
    assert waiting_for(config) == [job.id]  # a message for whoever takes over
    with WorkerProcess(config) as worker:
        until(lambda: store.jobs.get(job.id).fence == 2 and store.jobs.get(job.id).step > kept)


def test_events_tell_when_the_job_is_received_begun_and_ended(
    config: WorkerConfig, store: Store, submit: Submit, send: Callable[[str], bool], celery: Celery
) -> None:
    with following(celery) as seen, WorkerProcess(config):
        job = submit({"act": "count", "steps": 5})
        send(job.id)
        until(lambda: named(seen, "task-succeeded", job))
        kinds = ["task-received", "task-started", "task-succeeded"]
        assert [event["type"] for event in seen if event["type"] in kinds] == kinds
        assert named(seen, "task-succeeded", job)["result"] == "'succeeded'"


def test_flower_shows_the_job(
    config: WorkerConfig, store: Store, submit: Submit, send: Callable[[str], bool]
) -> None:
    with flower(config.broker_url) as url, WorkerProcess(config) as worker:
        job = begin(store, submit, send)

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


@on_both_if_long
def test_reaper_settles_jobs_whose_worker_is_gone(config: WorkerConfig, store: Store, submit: Submit) -> None:
    jobs = [submit({"act": "count", "steps": 1}) for _ in range(2)]
    for _ in jobs:
        assert store.leases.claim(JobKind.FINETUNE, "gone", -1.0) is not None
    store.jobs.request_pause(jobs[0].id)
    store.jobs.request_cancel(jobs[1].id)
    reaper(config, store).look()
    found = [store.jobs.get(job.id).status for job in jobs]
    assert found == [JobStatus.PAUSED, JobStatus.CANCELLED]
