"""Make the fixtures of a release: what its own program leaves behind, which later releases must take over.

    git switch --detach COMMIT                         # the release
    python -m tests.upgrade.make tests/upgrade/COMMIT  # a few minutes; then commit that folder

It runs `sds-clip up` over a new folder, once with SQLite and once with PostgreSQL, drives it over HTTP, stops it, and
packs what it has left:

    KIND/data.tar.gz        the data folder: versions, data sets, checkpoints; with SQLite the database too
    KIND/database.sql.gz    PostgreSQL's dump, as INSERT statements
    KIND/expected.json      what the API said of it at the end
    demo/                   the release's demo model and teacher, copied by hand

`test_upgrade.py` runs over every folder beside it. 1414a10 is older than this file, which was copied there together
with `tests/postgres.py`.
"""

import argparse
import gzip
import json
import shutil
import signal
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from sds_clip import Client, Job
from tests.app.serverside import running_server
from tests.postgres import PostgreSQL, running_postgresql
from tests.sds_clip.embedded import PATIENCE_S, Running, until
from tests.training import save_coco
from tests.worker.sets import save_winoground

IMAGE = Path(__file__).parents[2] / "demo" / "data" / "heldout" / "images" / "ex_0_img_0.png"
TEXTS = ["a red circle left of a blue star", "a blue star left of a red circle"]
FLOAT32 = {"SDS_CLIP_PRECISION": "float32"}

KEPT = ("sds-clip.db", "datasets/sets", "jobs", "versions")
"""Of a data folder; all else is caches, locks, and the broker's."""

STEPS = 40
PAUSE_AFTER = 5
TRAINING: dict[str, Any] = {
    "steps": STEPS,
    "batch_size": 8,
    "warmup_steps": 5,
    "lr": 1e-3,
    "precision": "float32",
    "teacher_precision": "float32",
    "log_every": 5,
    "keep_checkpoints": 1,
}
LONG: dict[str, dict[str, Any]] = {
    "sqlite": {"base": "demo", "objective": "sds-clip", "teacher": "demo", "hyperparameters": TRAINING},
    # This objective has no mapper, which is nine tenths of the other's checkpoint.
    "postgresql": {
        "base": "demo",
        "objective": "score",
        "teacher": "demo",
        "hyperparameters": {**TRAINING, "negatives": "swap", "score_draws": 2},
    },
}
"""The job that is paused, and the one like it that is not."""
_BRIEF = {**TRAINING, "steps": 4}
BRIEF = {"base": "demo", "objective": "clip", "hyperparameters": _BRIEF}
STILL = {**BRIEF, "hyperparameters": {**_BRIEF, "lr": 1e-30}}
"""It fails, since no weight changes."""


def make(folder: Path, kind: str, database_url: str) -> dict[str, Any]:
    """Run a system over a folder until its data folder holds everything; returns what is to be expected of it."""
    settings = {**FLOAT32, "SDS_CLIP_DATABASE_URL": database_url}
    running = Running(folder, **settings)
    try:
        with Client(running.url) as client:
            jobs = _submit(client, folder, LONG[kind])
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(PATIENCE_S) == 0
    finally:
        running.close()
    # Without a worker, what is submitted stays queued.
    with running_server(folder, **settings) as server, Client(server.url) as client:
        training_data = str(jobs["uninterrupted"].info["training_data"])
        jobs["queued"] = client.finetune(training_data, suffix="queued", seed=3, **BRIEF)
        return _expected(client, jobs)


def _submit(client: Client, folder: Path, options: dict[str, Any]) -> dict[str, Job]:
    pairs = _uploaded(client, save_coco(folder / "pairs").parent, "pairs")
    items = _uploaded(client, save_winoground(folder / "items"), "winoground")
    (save_coco(folder / "torn").parent / "0.png").write_bytes(b"no picture")
    _uploaded(client, folder / "torn", "pairs", status="rejected")

    other = client.finetune(pairs, suffix="other", seed=2, promote="always", alias="candidate", **BRIEF)
    other.wait()
    uninterrupted = client.finetune(
        pairs, suffix="uninterrupted", metadata={"note": "the reference"}, promote="always", **options
    ).wait()
    client.promote(str(uninterrupted.version), alias="candidate", reason="It is better.")
    measured = client.evaluate(
        "winoground", items, model=uninterrupted.version, baseline=other.version, suffix="measured"
    ).wait()
    failed = client.finetune(pairs, suffix="failed", **STILL)
    until(lambda: failed.refresh().has_ended)
    cancelled = client.finetune(pairs, suffix="cancelled", **BRIEF).pause().cancel()

    paused = client.finetune(pairs, suffix="paused", **options)
    until(lambda: paused.refresh().info["progress"]["step"] > PAUSE_AFTER)
    paused.pause()
    until(lambda: paused.refresh().status == "paused" or paused.has_ended)
    assert paused.status == "paused", "it was done before it was paused: make it longer"
    return {
        "other": other,
        "uninterrupted": uninterrupted,
        "measured": measured,
        "failed": failed,
        "cancelled": cancelled,
        "paused": paused,
    }


def _uploaded(client: Client, folder: Path, format: str, *, status: str = "ready") -> str:
    dataset = client.upload_dataset(folder, format=format)["id"]
    until(lambda: client.dataset(dataset)["status"] != "validating")
    assert client.dataset(dataset)["status"] == status
    return str(dataset)


def _expected(client: Client, jobs: dict[str, Job]) -> dict[str, Any]:
    listed = client.models()
    versions = [version["id"] for version in listed["versions"]]
    return {
        "datasets": {each["id"]: each["status"] for each in client.datasets()},
        "jobs": {name: client.job(job.id).info for name, job in jobs.items()},
        "aliases": {alias["name"]: alias for alias in listed["aliases"]},
        "versions": {version: client.model(version) for version in versions},
        "scores": {
            version: client.match([IMAGE], TEXTS, model=version)["results"][0]["scores"]
            for version in versions
        },
    }


def _pack(data: Path, file: Path) -> None:
    with tarfile.open(file, "w:gz", compresslevel=9) as tar:
        for name in KEPT:
            if (data / name).exists():
                tar.add(data / name, name)


def main() -> int:
    """Write the fixtures of both kinds."""
    parser = argparse.ArgumentParser(description="Make the fixtures of a release.")
    parser.add_argument("folder", type=Path, help="where to: tests/upgrade/COMMIT")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        _make(args.folder / "sqlite", Path(temporary) / "sqlite")
        with running_postgresql() as server:
            _make(args.folder / "postgresql", Path(temporary) / "postgresql", server)
    return 0


def _make(target: Path, folder: Path, server: PostgreSQL | None = None) -> None:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    folder.mkdir()
    name = None if server is None else server.create()
    url = f"sqlite:///{folder / 'data' / 'sds-clip.db'}" if name is None else server.url(name)
    expected = make(folder, target.name, url)
    (target / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    _pack(folder / "data", target / "data.tar.gz")
    if server is not None:
        (target / "database.sql.gz").write_bytes(gzip.compress(server.dump(name).encode(), mtime=0))


if __name__ == "__main__":
    sys.exit(main())
