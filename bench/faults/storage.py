"""Faults of the disk: a full one, and a corrupted checkpoint."""

import contextlib
import io
import resource
import signal
import time
from pathlib import Path
from random import Random

import httpx

from bench.faults.injections import Injected, submitted
from bench.faults.system import SAVE_EVERY, System
from sds_clip.app.store.states import TERMINAL, JobStatus
from sds_clip.worker.folders import Occupant
from sds_clip.worker.identity import kill

# Limits the size of any file a process writes. Only the file meant to hit a full disk is larger.
FULL_AT_BYTES = 8 * 2**20


def disk_is_full_at_a_checkpoint(system: System, random: Random) -> Injected:
    """Trains all weights, so that a checkpoint takes 19 MB. The job pauses and is resumed.

    If a job finishes before its disk is full, another one follows, twice at most.
    """
    stopped = (_stopped_by_a_full_disk(system, random) for _ in range(3))
    job = next((job for job in stopped if job is not None), None)
    assert job is not None, "three jobs were done, and no full disk stopped them"
    assert _failures(system, job) == ["storage_full"]
    at = time.time()
    system.client.post(f"/jobs/{job}/resume").raise_for_status()
    return Injected(job, at)


def _stopped_by_a_full_disk(system: System, random: Random) -> str | None:
    job = submitted(system, random, trainable="all")

    def has_stopped() -> bool:
        if (found := system.trainer(job)) is not None:  # on a busy machine another may have taken over
            fill_disk_of(found[1])
        return system.job(job).status in {JobStatus.PAUSED} | TERMINAL

    system.until(has_stopped, "a pause")
    return None if system.job(job).status is JobStatus.SUCCEEDED else job


def disk_is_full_at_an_upload(system: System, random: Random) -> Injected:
    """The caller gets an error, and nothing is left behind."""
    job = submitted(system, random)
    datasets = system.data_dir / "datasets"
    files, rows = sorted(datasets.rglob("*")), system.store.datasets.list(limit=100)
    limits = resource.prlimit(system.service.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(system.service.pid, resource.RLIMIT_FSIZE, (FULL_AT_BYTES, limits[1]))
    answer = system.client.post(
        "/datasets",
        data={"name": "large", "format": "pairs"},
        files={"file": ("large.tar", io.BytesIO(bytes(FULL_AT_BYTES + 1)))},
    )
    resource.prlimit(system.service.pid, resource.RLIMIT_FSIZE, limits)
    assert answer.status_code == httpx.codes.INSUFFICIENT_STORAGE, answer.text
    assert sorted(datasets.rglob("*")) == files
    assert system.store.datasets.list(limit=100) == rows
    return Injected(job, time.time())


def newest_checkpoint_is_corrupted(system: System, random: Random) -> Injected:
    """Its process dies, and its newest checkpoint is corrupted before the next attempt."""
    job = submitted(system, random)
    system.until_step(job, 2 * SAVE_EVERY + 1)
    folder, occupant = system.at_work(job)
    worker = system.worker_of(occupant)
    worker.send(signal.SIGSTOP)
    assert kill(occupant.process), "it had ended"
    at = time.time()
    newest = max((folder.run / "checkpoints").glob("step-*"))
    corrupt(newest / "state.safetensors", random)
    worker.send(signal.SIGCONT)
    system.until(lambda: _resumed_at(system, job), "another attempt")
    assert _resumed_at(system, job) < int(newest.name.removeprefix("step-"))
    return Injected(job, at)


def _failures(system: System, job: str) -> list[str]:
    """Error codes of the attempts so far."""
    transitions = system.store.events.transitions(job)
    return [event.data["error"]["code"] for event in transitions if event.data and "error" in event.data]


def _resumed_at(system: System, job: str) -> int:
    """The step from which a later attempt resumed; 0 if none did."""
    events = system.store.events.events(job, limit=1000)
    steps = (event.data["step"] for event in events if event.data and set(event.data) == {"step"})
    return next((step for step in steps if step), 0)


def fill_disk_of(occupant: Occupant) -> None:
    """Keep a process from writing large files."""
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(occupant.process.pid, resource.RLIMIT_FSIZE, (FULL_AT_BYTES, FULL_AT_BYTES))


def corrupt(file: Path, random: Random) -> None:
    """Flip one bit of a file."""
    content = bytearray(file.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    file.unlink()  # another attempt's folder may have a hard link to it
    file.write_bytes(content)
