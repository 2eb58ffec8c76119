"""Times GET /jobs with few and with many finished jobs."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from sqlalchemy import insert, select

from bench import servers
from bench.report import note
from bench.rounds import in_turns
from sds_clip.app.schemas.finetune import FinetuneSpec
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Lease, NewJob
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.tables import events, jobs

FEW, MANY = 100, 10_000


@dataclass(frozen=True)
class Lists:
    """One request's times with few and many jobs."""

    name: str
    few_ms: float
    many_ms: float

    @property
    def ratio(self) -> float:
        return self.many_ms / self.few_ms


def measure_lists(folder: Path, requests: int) -> list[Lists]:
    """Ask both servers alternately; returns medians."""
    paths = ("/jobs", "/jobs?kind=finetune&status=succeeded", "/jobs?limit=100", "/jobs?after={middle}")
    with ExitStack() as stack:
        asked = {count: _asked(stack, folder, count) for count in (FEW, MANY)}
        found = []
        for path in paths:
            note(f"GET {path} with {FEW} and {MANY} jobs")
            runs = {
                count: partial(_ask, client, path.format(middle=middle))
                for count, (client, middle) in asked.items()
            }
            found.append(in_turns("", requests, runs, warm_up=True))
    return [Lists(path, median(ms[FEW]), median(ms[MANY])) for path, ms in zip(paths, found, strict=True)]


def fill(database_url: str, count: int, owner: str = "") -> str:
    """Store copies of one finished job with its events; returns the middle one's id."""
    store = Store(database_url)
    store.migrate()
    job = submit(store, owner=owner)
    claimed = store.leases.claim(JobKind.FINETUNE, "bench", 60)
    assert claimed is not None
    store.leases.succeed(Lease.of(claimed), result={"steps": 1})
    with store.database.writing() as connection:
        row = dict(connection.execute(select(jobs)).mappings().one())
        told = [dict(event) for event in connection.execute(select(events)).mappings()]
        ids = [f"{job.id}{number:06}" for number in range(1, count)]
        copies = [_copy(row, id, number) for number, id in enumerate(ids)]
        connection.execute(insert(jobs), copies)
        connection.execute(insert(events), [{**event, "job_id": id} for id in ids for event in told])
    store.close()
    return ids[count // 2]


def submit(store: Store, data: str = "ds_bench", owner: str = "") -> Job:
    """Store a job as POST /finetune does."""
    asked = {"base": "demo", "objective": "clip", "training_data": data, "hyperparameters": {"steps": 1}}
    spec = FinetuneSpec.model_validate(asked)
    job, _ = store.jobs.submit(NewJob(JobKind.FINETUNE, spec.as_sent(), spec.as_row(), owner=owner))
    return job


def _copy(row: dict[str, Any], id: str, number: int) -> dict[str, Any]:
    return {**row, "id": id, "created_at": row["created_at"] + number}


def _asked(stack: ExitStack, folder: Path, count: int) -> tuple[httpx.Client, str]:
    """A client for a server with this many jobs, and the id of the middle job."""
    own = folder / str(count)
    url = f"sqlite:///{own / 'jobs.db'}"
    middle = fill(url, count)
    server = servers.sds_clip(f"jobs {count}", "serve", "--model", "demo")
    running = stack.enter_context(servers.running(server, own, SDS_CLIP_DATABASE_URL=url))
    return stack.enter_context(httpx.Client(base_url=running.url, timeout=60)), middle


def _ask(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    response = client.get(path)
    took_ms = 1000 * (time.perf_counter() - began)
    response.raise_for_status()
    return took_ms
