"""Jobs: how soon a submitted one trains, how long listing many takes, and the cost of supervising a run.

Start: `sds-clip up`, idle, with a warm process; jobs are submitted one after another. Lists: one server with
100 finished jobs and one with 10,000, asked alternately. Supervision: a training run's heartbeats, events and
progress, as its process reports them.
"""

import argparse
import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from bench import report, servers
from bench.job_lists import FEW, MANY, Lists, measure_lists
from bench.report import note
from bench.sets import make_images

IMAGES = 64
PATIENCE_S = 600.0
_IMPORT = (
    "import time; began = time.perf_counter(); import worker.finetune_job; print(time.perf_counter() - began)"
)


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    starts: int
    requests: int
    steps: int
    folder: Path


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = parse(arguments)
    heading = report.machine()
    shutil.rmtree(plan.folder, ignore_errors=True)
    note(f"lists of {FEW} and {MANY} jobs")
    lists = measure_lists(plan.folder / "lists", plan.requests)
    note(f"{plan.starts} submissions, and a run of {plan.steps} steps")
    imports_s, starts, watching = measure_runs(plan.folder / "runs", plan.starts, plan.steps)
    print(report.command("bench.jobs", arguments) + "\n")
    print(f"{heading}\n{report.versions(report.SERVICE)}.\n")
    print(start_table(imports_s, starts) + "\n")
    print(list_table(lists) + "\n")
    print(
        f"A run of {watching.ran_s:.1f} s: renewing its lease took {watching.renewed_s:.3f} s, events, metrics "
        f"and progress {watching.told_s:.3f} s.\n"
    )
    print(report.verdicts(targets(starts, lists, watching)))


def start_table(imports_s: float, starts: Sequence[Start]) -> str:
    """When each stage was reached, after the request was sent."""
    times = {
        "accepted": [start.accepted_s for start in starts],
        "a worker has it": [start.claimed_s for start in starts],
        "model and data are loaded, the trainer starts": [start.trains_s for start in starts],
    }
    rows = [[name, f"{median(found):.2f}", f"{max(found):.2f}"] for name, found in times.items()]
    table = report.markdown(("after the submission, s", "median", "slowest"), rows)
    return f"{table}\n\nImporting what a job needs, which is done before it comes: {imports_s:.2f} s."


def list_table(lists: Sequence[Lists]) -> str:
    rows = [[each.name, f"{each.few_ms:.2f}", f"{each.many_ms:.2f}", f"{each.ratio:.2f}"] for each in lists]
    return report.markdown(("request", f"p50 ms, {FEW} jobs", f"p50 ms, {MANY} jobs", "ratio"), rows)


def targets(starts: Sequence[Start], lists: Sequence[Lists], watching: Watching) -> list[report.Target]:
    return [
        report.Target(
            "slowest submission to trainer started, s",
            max(start.trains_s for start in starts),
            3,
            at_least=False,
        ),
        report.Target(
            f"GET /jobs with {MANY} finished jobs over {FEW}",
            max(each.ratio for each in lists),
            1.5,
            at_least=False,
        ),
        report.Target("heartbeats and events, % of a run", 100 * watching.share, 1, at_least=False),
    ]


def parse(arguments: list[str] | None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m bench.jobs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test, not a measurement")
    parser.add_argument("--starts", type=int, help="jobs to submit (10, or 2 with --quick)")
    parser.add_argument(
        "--requests", type=int, help="lists to ask for, of each kind (300, or 20 with --quick)"
    )
    parser.add_argument("--steps", type=int, help="of the run that is watched (400, or 20 with --quick)")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"))
    options = parser.parse_args(arguments)
    quick = options.quick
    return Plan(
        starts=options.starts or (2 if quick else 10),
        requests=options.requests or (20 if quick else 300),
        steps=options.steps or (20 if quick else 400),
        folder=options.cache.resolve() / "jobs",
    )


def measure_runs(folder: Path, starts: int, steps: int) -> tuple[float, list[Start], Watching]:
    """Seconds for the imports, the starts, and the last run's account."""
    log = folder / "logs" / "up.log"
    server = servers.Server(
        "up", lambda port: [sys.executable, "-m", "sds_clip", "up", "--port", str(port)], ready="/ready"
    )
    imports_s = float(subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, check=True).stdout)
    with servers.running(server, folder, SDS_CLIP_LOG_LEVEL="info") as running:
        client = httpx.Client(base_url=f"http://127.0.0.1:{running.port}", timeout=60)
        dataset = _upload(client, folder / "images")
        found = []
        for _ in range(starts):
            _wait_until_warm(running)
            found.append(_start(client, dataset, folder / "data"))
        job = _submit(client, dataset, steps)
        _wait_until_done(client, job)
    return imports_s, found, _account(log, job)


def _upload(client: httpx.Client, images: Path) -> str:
    """Upload images with captions as a data set; returns its id once it has been checked."""
    archive, lines = io.BytesIO(), ["filepath\ttitle"]
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for number, image in enumerate(make_images(images, IMAGES)):
            tar.add(image, image.name)
            lines.append(f"{image.name}\ta scene of number {number}")
        text = "\n".join(lines).encode()
        entry = tarfile.TarInfo("pairs.tsv")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    sent = client.post(
        "/datasets", data={"name": "bench", "format": "pairs"}, files={"file": archive.getvalue()}
    )
    dataset: str = sent.raise_for_status().json()["id"]
    _until(lambda: client.get(f"/datasets/{dataset}").json()["status"] != "validating")
    found = client.get(f"/datasets/{dataset}").json()
    if found["status"] != "ready":
        raise RuntimeError(f"the data set was not accepted: {found}")
    return dataset


def _submit(client: httpx.Client, dataset: str, steps: int) -> str:
    options = {"steps": steps, "batch_size": 32, "warmup_steps": 1, "log_every": 1, "save_every": 50}
    body = {"base": "demo", "objective": "clip", "training_data": dataset, "hyperparameters": options}
    job: str = client.post("/finetune", json=body).raise_for_status().json()["id"]
    return job


def _start(client: httpx.Client, dataset: str, data_dir: Path) -> Start:
    """Submit a job and time each stage."""
    sent_at = time.time()
    job = _submit(client, dataset, steps=2000)
    accepted_at = time.time()
    # The run writes its configuration once everything is loaded, just before its first step.
    written = data_dir / "jobs" / job / "1" / "run" / "config.yaml"
    _until(written.exists)
    trains_at = written.stat().st_mtime
    claimed_at = float(client.get(f"/jobs/{job}").json()["started_at"])
    client.post(f"/jobs/{job}/cancel").raise_for_status()
    _wait_until_done(client, job)
    return Start(accepted_at - sent_at, claimed_at - sent_at, trains_at - sent_at)


def _wait_until_done(client: httpx.Client, job: str) -> None:
    _until(lambda: client.get(f"/jobs/{job}").json()["finished_at"])


def _wait_until_warm(up: servers.Running) -> None:
    """Wait until the warm fine-tuning process has imported everything and is idle."""
    before: dict[int, int] = {}

    def rests() -> bool:
        nonlocal before
        last, before = before, _spent(up)
        time.sleep(1.0)
        return bool(last) and last == before

    _until(rests)


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
        if f"job {job}: what being watched took" in line:
            fields = json.loads(line[line.index("{") :])
            return Watching(fields["ran_s"], fields["renewed_s"], fields["told_s"])
    raise RuntimeError(f"{log} does not say what watching {job} took")


def _until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        if time.monotonic() > deadline:
            raise RuntimeError("it never happened; see the log")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
