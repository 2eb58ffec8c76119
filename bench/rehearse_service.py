"""Rehearses jobs of real size through the API, with random weights: killed, paused and cancelled in every stage.

One job runs undisturbed. In each of its stages, another job's process is killed, a third job is paused and resumed, and
further ones are cancelled. The first three have to end with the same version.
A stage may be over before it is seen: its row says so, and nothing was tried in it.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import child, servers, weights
from bench.jobs import upload_pairs
from bench.options import cache_option, option, parse
from bench.rehearsal_weights import TEACHERS, make_teacher
from bench.report import heading, note
from sds_clip.client import Client, Job
from sds_clip.client.errors import Conflict
from sds_clip.models.markdown import markdown_table

PAIRS = 16
ACTIONS = ("kill", "pause", "cancel")
NOT_SEEN = ("", "stage not seen")


@dataclass(frozen=True)
class Plan:
    """What is rehearsed."""

    teacher: str = option("sd15", "Shapes of the teacher.", quick="tiny", choices=TEACHERS, kind=str)
    student: str = option("ViT-B-32", "Name of an open_clip model.")
    objective: str = option("sds-clip", "Objective of the jobs.")
    sds_batch_size: int = option(1, "Number of samples of a batch that the teacher sees.")
    actions: Sequence[str] = option(ACTIONS, "What is done.", choices=ACTIONS, kind=str, nargs="+")
    cache: Path = cache_option()


@dataclass(frozen=True)
class Rehearsal:
    """A system at work, and the jobs that it gets."""

    client: Client
    system: servers.Running
    body: dict[str, Any]

    def submit(self) -> Job:
        return self.client.finetune(**self.body)

    def stages(self, job: Job) -> Iterator[str]:
        """Yield each stage of a job when it is first seen in it, until the job has ended."""
        seen = set[str]()
        while not job.refresh().has_ended:
            stage = job.info["stage"]
            if job.status == "running" and stage is not None and stage not in seen:
                seen.add(stage)
                yield stage
            time.sleep(0.05)

    def undisturbed(self) -> tuple[str, list[str], float]:
        """Return a job's version, its stages and its seconds."""
        began, job = time.monotonic(), self.submit()
        stages = list(self.stages(job))
        job.raise_for_failure()
        return str(job.version), stages, time.monotonic() - began

    def kill(self, job: Job) -> None:
        """Kill the job's process, and wait until a worker has claimed the job again."""
        attempt = job.info["attempt"]
        for pid in servers.descendants(self.system.pid):
            with suppress(OSError):
                if b"--kind\0finetune" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        servers.wait_until(lambda: job.refresh().info["attempt"] > attempt or job.has_ended, "claimed again")

    def pause(self, job: Job) -> None:
        with suppress(Conflict):  # it has ended since
            job.pause()
        servers.wait_until(lambda: job.refresh().status == "paused" or job.has_ended, "paused")

    def cancel(self, job: Job) -> None:
        with suppress(Conflict):
            job.cancel()
        servers.wait_until(lambda: job.refresh().has_ended, "cancelled")


def rehearse(rehearsal: Rehearsal, actions: Sequence[str]) -> Iterator[list[object]]:
    """Yield a row for each action in each stage."""
    version, stages, took_s = rehearsal.undisturbed()
    yield ["", "nothing", f"{took_s:.0f}", "succeeded", "yes"]
    for action in (name for name in ("kill", "pause") if name in actions):
        note(f"{action} in each stage")
        job = rehearsal.submit()
        rows: list[list[object]] = []
        for stage in rehearsal.stages(job):
            began = time.monotonic()
            getattr(rehearsal, action)(job)
            rows.append([stage, action, f"{time.monotonic() - began:.1f}", job.status])
            if job.status == "paused":
                job.resume()
        tried = {row[0] for row in rows}
        rows += [[stage, action, *NOT_SEEN] for stage in stages if stage not in tried]
        yield from ([*row, "yes" if job.version == version else "NO"] for row in rows)
    for place in stages if "cancel" in actions else ():
        note(f"cancel in the stage: {place}")
        job = rehearsal.submit()
        rows = []
        for stage in rehearsal.stages(job):
            if stage == place:
                began = time.monotonic()
                rehearsal.cancel(job)
                rows.append([stage, "cancel", f"{time.monotonic() - began:.1f}", job.status, ""])
        yield from rows or [[place, "cancel", *NOT_SEEN, ""]]


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.rehearse_service", __doc__, arguments)
    teacher = child.call(make_teacher, plan.teacher, plan.cache / f"random-{plan.teacher}")
    base = child.call(weights.make_open_clip, plan.cache / plan.student, plan.student)
    folder = plan.cache / "rehearsal-service"
    shutil.rmtree(folder, ignore_errors=True)
    up = servers.sds_clip("rehearsal", "up", "--model", f"local-dir:{base}", "--precision", "float32")
    # A job is killed once in each stage, and two of its steps are all that get it further.
    settings = {"SDS_CLIP_ALLOWED_TEACHERS": f"local-dir:{teacher}", "SDS_CLIP_MAX_ATTEMPTS": "9"}
    with servers.running(up, folder, **settings) as system, Client(system.url) as client:
        data = upload_pairs(client, folder / "images", PAIRS)
        body: dict[str, Any] = {
            "training_data": data,
            "validation_data": data,
            "base": f"local-dir:{base}",
            "teacher": f"local-dir:{teacher}",
            "objective": plan.objective,
            "hyperparameters": {
                "steps": 2,
                "batch_size": 8,
                "sds_batch_size": plan.sds_batch_size,
                "ridge_images": PAIRS,
            },
        }
        rows = list(rehearse(Rehearsal(client, system, body), plan.actions))
    print(heading("bench.rehearse_service", arguments))
    print(markdown_table(("stage", "action", "took s", "status", "same version"), rows, text=(0, 1, 3, 4)))


if __name__ == "__main__":
    main()
