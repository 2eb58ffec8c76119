"""Times GET /jobs/{id}/curves for a job with a long curve of several metrics."""

import math
import time
from pathlib import Path

import httpx
from sqlalchemy import insert

from bench import servers
from bench.job_lists import fill
from bench.report import note
from bench.rounds import in_turns
from sds_clip.app.store import Store
from sds_clip.app.store.tables import metrics

POINTS = 100_000
NAMES = ("loss", "clip", "sds", "lr", "gradient_norm", "residual", "residual_shuffled", "images_per_s")
PATHS = ("curves", "curves?names=loss", f"curves?from_step={POINTS // 2}&to_step={POINTS // 2 + 1000}")


def measure_curves(folder: Path, requests: int) -> dict[str, list[float]]:
    """Milliseconds of each request: all curves, one of them, and a thousand steps of all."""
    url = f"sqlite:///{folder / 'jobs.db'}"
    job = fill(url, 3)
    add_points(url, job)
    note(f"curves of {POINTS} points")
    server = servers.sds_clip("curves", "serve", "--model", "demo")
    with (
        servers.running(server, folder, SDS_CLIP_DATABASE_URL=url) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):

        def ask(path: str) -> float:
            began = time.perf_counter()
            client.get(f"/jobs/{job}/{path}").raise_for_status()
            return 1000 * (time.perf_counter() - began)

        return in_turns("", requests, {path: lambda path=path: ask(path) for path in PATHS}, warm_up=True)  # type: ignore[misc]


def add_points(url: str, job: str) -> None:
    """Store the curves of the job."""
    store = Store(url)
    with store.database.writing() as connection:
        for start in range(0, POINTS, 10_000):
            rows = [
                {
                    "job_id": job,
                    "step": step,
                    "values": {name: math.sin(step / (place + 7)) for place, name in enumerate(NAMES)},
                    "at": 0.0,
                }
                for step in range(start, start + 10_000)
            ]
            connection.execute(insert(metrics), rows)
    store.close()
