"""`sds-clip up` with the demo model: how soon a submitted job trains, and what a run spends on being watched."""

import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench import servers
from bench.images import make_images
from bench.load import Call

IMAGES = 64
PATIENCE_S = 600.0
_IMPORT = (
    "import time; began = time.perf_counter(); import worker.finetune_job; print(time.perf_counter() - began)"
)


@dataclass(frozen=True)
class Start:
    """Seconds from sending the request until it was answered, a worker had the job, and the trainer was set up."""

    accepted_s: float
    claimed_s: float
    trains_s: float


@dataclass(frozen=True)
class Watching:
    """A run, and the time in it that went into its lease and into what it told."""

    ran_s: float
    renewed_s: float
    told_s: float

    @property
    def share(self) -> float:
        """Of the run."""
        return (self.renewed_s + self.told_s) / self.ran_s


def measure_runs(folder: Path, starts: int, steps: int) -> tuple[float, list[Start], Watching]:
    """Seconds that imports take; the starts; and the last run's account."""
    log = folder / "logs" / "up.log"
    server = servers.Server(
        "up",
        lambda port: [sys.executable, "-m", "sds_clip", "up", "--port", str(port)],
        Call("jobs", "/jobs", ""),
        lambda answer: np.zeros(0),
        ready="/ready",
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
    """Pictures with captions, sent as a data set; its id once it has been checked."""
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
    """Submit a job, and look at the clock at each of its stations."""
    sent_at = time.time()
    job = _submit(client, dataset, steps=2000)
    accepted_at = time.time()
    # The run writes down its configuration when everything is loaded, just before its first step.
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
    """Until the process that waits for a fine-tuning job has imported everything, and computes no more."""
    before: dict[int, int] = {}

    def rests() -> bool:
        nonlocal before
        last, before = before, _spent(up)
        time.sleep(1.0)
        return bool(last) and last == before

    _until(rests)


def _spent(up: servers.Running) -> dict[int, int]:
    """Clock ticks that each process which waits for a job has computed; none where there is no such process."""
    return {
        pid: sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        for pid in servers.descendants(up.pid)
        if b"--kind\0finetune" in Path(f"/proc/{pid}/cmdline").read_bytes()
    }


def _account(log: Path, job: str) -> Watching:
    """What the job's process has written down at its end."""
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
