"""A system at work for the dashboards' pictures: callers, one that is refused, jobs, faults and a rollback.

Some minutes in which everything that the dashboards show happens at least once, but for errors of the server.
"""

import contextlib
import io
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from sds_clip import Client, Job
from sds_clip.app.keys import create_key
from sds_clip.client.schemas import Hyperparameters
from sds_clip.demo.folders import write_pairs
from sds_clip.demo.load import Ask, Load
from sds_clip.demo.sets import training_pairs
from tests.app.serverside import free_ports
from tests.monitoring.prometheus import Prometheus
from tests.sds_clip.embedded import Running, until

WINOGROUND = Path(__file__).parents[1] / "demo" / "data" / "validation"
PAIRS = 512
SHORT: Hyperparameters = {"steps": 40, "batch_size": 32, "warmup_steps": 5}
LONG: Hyperparameters = {**SHORT, "steps": 250}
CALM_S, FLOOD_S = 30, 45
FLOODING = 3
"""Threads of the key that asks too much."""
SETTINGS = {"SDS_CLIP_MAX_ATTEMPTS": "2", "SDS_CLIP_MAX_ITEMS_PER_S_PER_KEY": "100"}


@contextlib.contextmanager
def monitored_load(folder: Path) -> Iterator[tuple[Prometheus, float, float]]:
    """Run the system under load; yields its Prometheus with the begin and the end of the load."""
    port = free_ports(3)
    keys = folder / "keys.json"
    admin = create_key(keys, "admin", ["infer", "train", "admin"])
    phone, crawler = (create_key(keys, name, ["infer"]) for name in ("phone", "crawler"))
    system = Running(folder, SDS_CLIP_METRICS_PORT=str(port), SDS_CLIP_KEYS_FILE=str(keys), **SETTINGS)
    targets = {
        "sds-clip": [system.url.removeprefix("http://")],
        "sds-clip-worker": [f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"],
    }
    prometheus = Prometheus(folder, port + 2, targets)
    try:
        until(lambda: prometheus.query("sds_clip_slot_busy"))
        write_pairs(folder / "pairs", training_pairs(0, 0, PAIRS))
        start = time.time()
        with (
            Client(system.url, api_key=admin) as client,
            Load(system.url, asks(photo(640, 480), texts=10), key=phone, pauses_s=[0.2]),
        ):
            time.sleep(CALM_S)
            _work(system, client, folder / "pairs", crawler)
            time.sleep(CALM_S)
        yield prometheus, start, time.time()
    finally:
        prometheus.close()
        system.close()


def _work(system: Running, client: Client, pairs: Path, crawler: str) -> None:
    """Jobs with faults, beside which callers come and go."""
    data = client.upload_dataset(pairs, format="pairs")["id"]
    items = client.upload_dataset(WINOGROUND, format="winoground")["id"]

    def finetune(options: Hyperparameters, promote: Literal["always", "never"]) -> Job:
        return client.finetune(data, objective="clip", hyperparameters=options, promote=promote)

    first = finetune(SHORT, "always")
    evaluation = client.evaluate("winoground", items, model="default")
    first.wait()
    evaluation.wait()
    flood = asks(photo(3000, 2000), texts=100)
    with Load(system.url, flood, key=crawler, pauses_s=[0.2] * FLOODING):
        time.sleep(FLOOD_S)
    failing = finetune(LONG, "never")
    for attempt in (1, 2):
        _kill(system, "sds_clip.worker.job_process", failing, attempt)
    until(lambda: failing.refresh().has_ended)
    interrupted, waiting = finetune(LONG, "always"), finetune(SHORT, "never")
    _kill(system, "--queue finetune", interrupted, 1)
    interrupted.wait()
    waiting.wait()
    time.sleep(CALM_S)  # so that the promoted version is seen too
    client.rollback(reason="to show it")


def _kill(system: Running, words: str, job: Job, attempt: int) -> None:
    """Kill a process while a job is in its n-th attempt."""

    def process() -> int | None:
        info = job.refresh().info
        is_at_work = info["status"] == "running" and info["attempt"] == attempt
        return system.part(words) if is_at_work else None

    until(process)
    time.sleep(3)  # so that it can be seen
    pid = process()
    assert pid is not None, job.info
    os.kill(pid, signal.SIGKILL)


def asks(image: bytes, texts: int) -> Ask:
    """Requests of every kind, of which one in twenty cannot be answered."""

    def ask(client: Client, number: int) -> str:
        asked = [f"picture {number // 3} of {count} shapes" for count in range(texts)]
        if number % 20 == 0:
            answer: Mapping[str, Any] = client.match([b"not an image"], asked)
        elif number % 5 == 0:
            answer = client.embed([image])
        elif number % 5 == 1:
            answer = client.classify([image], ["a yellow star", "a cyan circle"])
        else:
            answer = client.match([image], asked)
        return str(answer["model"]["version"])

    return ask


def photo(width: int, height: int) -> bytes:
    """A JPEG of coarse noise."""
    blocks = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(blocks).resize((width, height)).save(file, "JPEG")
    return file.getvalue()
