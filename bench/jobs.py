"""Measures how soon a submitted job trains, how long lists and long curves take, and the cost of supervising a run.

Start: `sds-clip up`, idle, with a warm process; jobs are submitted one after another. Lists: one server with
100 finished jobs and one with 10,000, asked alternately. Curves: a job with 100,000 points of eight metrics.
Supervision: a training run's heartbeats, events and progress, as its process reports them.
"""

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import report, servers
from bench.curves import POINTS, measure_curves
from bench.job_lists import FEW, MANY, Lists, measure_lists
from bench.options import cache_option, option, parse
from bench.report import at_most, note
from bench.servers import wait_until
from bench.sets import make_images
from sds_clip.client import Client, Job, JobFailed
from sds_clip.models.markdown import markdown_table

IMAGES = 64
_IMPORT = "import time; at = time.perf_counter(); import sds_clip.worker.finetune_job; print(time.perf_counter() - at)"


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    starts: int = option(10, "Number of jobs to submit one after another.", quick=2)
    requests: int = option(300, "Number of requests for each kind of list.", quick=20)
    steps: int = option(400, "Number of steps of the run whose supervision is measured.", quick=20)
    cache: Path = cache_option()


@dataclass(frozen=True)
class Start:
    """Seconds from sending the request until it was answered, a worker claimed it, and training starts."""

    accepted_s: float
    claimed_s: float
    trains_s: float


@dataclass(frozen=True)
class Watching:
    """A run's duration, and the time spent on its lease and its reports."""

    ran_s: float
    renewed_s: float
    told_s: float

    @property
    def share(self) -> float:
        return (self.renewed_s + self.told_s) / self.ran_s


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.jobs", __doc__, arguments)
    heading = report.heading("bench.jobs", arguments)
    folder = plan.cache / "jobs"
    shutil.rmtree(folder, ignore_errors=True)
    lists = measure_lists(folder / "lists", plan.requests)
    curves = measure_curves(folder / "curves", max(3, plan.requests // 10))
    note(f"{plan.starts} submissions, and a run of {plan.steps} steps")
    imports_s, starts, watching = measure_runs(folder / "runs", plan.starts, plan.steps)
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}.",
        start_table(starts),
        f"Importing what a job needs, which is done before it comes: {imports_s:.2f} s.",
        list_table(lists),
        curve_table(curves),
        f"A run of {watching.ran_s:.1f} s: renewing its lease took {watching.renewed_s:.3f} s, events, metrics "
        f"and progress {watching.told_s:.3f} s.",
        targets=targets(starts, lists, curves, watching),
    )


def start_table(starts: Sequence[Start]) -> str:
    """When each stage was reached, after the request was sent."""
    times = {
        "accepted": [start.accepted_s for start in starts],
        "a worker has it": [start.claimed_s for start in starts],
        "model and data are loaded, the trainer starts": [start.trains_s for start in starts],
    }
    rows = [[name, f"{median(found):.2f}", f"{max(found):.2f}"] for name, found in times.items()]
    return markdown_table(("after the submission, s", "median", "slowest"), rows)


def list_table(lists: Sequence[Lists]) -> str:
    rows = [[each.name, f"{each.few_ms:.2f}", f"{each.many_ms:.2f}", f"{each.ratio:.2f}"] for each in lists]
    return markdown_table(("request", f"p50 ms, {FEW} jobs", f"p50 ms, {MANY} jobs", "ratio"), rows)


def curve_table(curves: Mapping[str, Sequence[float]]) -> str:
    rows = [[f"/jobs/{{id}}/{path}", *report.percentiles(ms, 0)] for path, ms in curves.items()]
    return markdown_table((f"request, {POINTS} points", "p50 ms", "p95 ms", "p99 ms"), rows)


def targets(
    starts: Sequence[Start],
    lists: Sequence[Lists],
    curves: Mapping[str, Sequence[float]],
    watching: Watching,
) -> list[report.Target]:
    slowest, ratio = max(start.trains_s for start in starts), max(each.ratio for each in lists)
    return [
        at_most("slowest submission to trainer started, s", slowest, 3),
        at_most(f"GET /jobs with {MANY} finished jobs over {FEW}", ratio, 1.5),
        at_most(f"curves of {POINTS} points, ms", max(median(ms) for ms in curves.values()), 1000),
        at_most("heartbeats and events, % of a run", 100 * watching.share, 1),
    ]


def measure_runs(folder: Path, starts: int, steps: int) -> tuple[float, list[Start], Watching]:
    """Seconds for the imports, the starts, and the last run's account."""
    imports_s = float(subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, check=True).stdout)
    up = servers.sds_clip("up", "up")
    with (
        servers.running(up, folder, SDS_CLIP_LOG_LEVEL="info") as running,
        Client(running.url) as client,
    ):
        dataset = upload_pairs(client, folder / "images", IMAGES)
        found = []
        for _ in range(starts):
            _wait_until_warm(running)
            found.append(_start(client, dataset, folder / "data"))
        job = _submit(client, dataset, steps).wait()
    return imports_s, found, _account(running.log, job.id)


def upload_pairs(client: Client, folder: Path, count: int) -> str:
    """Upload so many images with captions as a data set; returns its id once it has been checked."""
    for number, image in enumerate(make_images(folder, count)):
        image.with_suffix(".txt").write_text(f"a scene of number {number}")
    dataset = client.upload_dataset(folder, format="pairs", name="bench")["id"]
    wait_until(lambda: client.dataset(dataset)["status"] != "validating", "checked")
    found = client.dataset(dataset)
    if found["status"] != "ready":
        raise RuntimeError(f"the data set was not accepted: {found}")
    return dataset


def _submit(client: Client, dataset: str, steps: int) -> Job:
    return client.finetune(
        dataset,
        base="demo",
        objective="clip",
        hyperparameters={
            "steps": steps,
            "batch_size": 32,
            "warmup_steps": 1,
            "log_every": 1,
            "save_every": 50,
        },
    )


def _start(client: Client, dataset: str, data_dir: Path) -> Start:
    """Submit a job and time each stage."""
    sent_at = time.time()
    job = _submit(client, dataset, steps=2000)
    accepted_at = time.time()
    # The run writes its configuration once everything is loaded, just before its first step.
    written = data_dir / "jobs" / job.id / "1" / "run" / "config.yaml"
    wait_until(written.exists, "training")
    trains_at = written.stat().st_mtime
    claimed_at = job.refresh().info["started_at"] or math.nan
    job.cancel()
    with suppress(JobFailed):
        job.wait()
    return Start(accepted_at - sent_at, claimed_at - sent_at, trains_at - sent_at)


def _wait_until_warm(up: servers.Running) -> None:
    """Wait until the warm fine-tuning process has imported everything and is idle."""
    before: dict[int, int] = {}

    def rests() -> bool:
        nonlocal before
        last, before = before, _spent(up)
        time.sleep(1.0)
        return bool(last) and last == before

    wait_until(rests, "warm")


def _spent(up: servers.Running) -> dict[int, int]:
    """CPU ticks of each warm process; empty if there is none."""
    return {
        pid: sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        for pid in servers.descendants(up.pid)
        if b"--kind\0finetune" in Path(f"/proc/{pid}/cmdline").read_bytes()
    }


def _account(log: Path, job: str) -> Watching:
    """The account that the job's process logged at its end."""
    for line in log.read_text().splitlines():
        if job in line and '"renewed_s"' in line:
            fields = json.loads(line[line.index("{") :])
            return Watching(fields["ran_s"], fields["renewed_s"], fields["told_s"])
    raise RuntimeError(f"{log} does not say how long watching {job} took")


if __name__ == "__main__":
    main()
