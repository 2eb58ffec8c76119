"""A system with something of everything, made without a service: rows, and the files that they name."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds_clip.app.backup.integrity import Report, check_integrity
from sds_clip.app.datasets.folders import ARCHIVE, FILES, SHARDS, DatasetFolders, shard_name
from sds_clip.app.datasets.hashes import write_hashes
from sds_clip.app.registry.manifest import write_manifest
from sds_clip.app.store import Clock, Store
from sds_clip.app.store.database import Database
from sds_clip.app.store.records import Job, JobError, Lease, Move, NewJob, NewVersion
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.transfer import read_rows
from sds_clip.app.store.verdicts import check_of
from sds_clip.models.checkpoints.model_config import CONFIG_FILE
from sds_clip.models.run_files import checkpoint_name
from tests.checks import claimed_check

REPORT = "report.html"


@dataclass(frozen=True)
class Made:
    """What the system has, by its ids."""

    base: str
    version: str
    archive_set: str
    shard_set: str
    deleted_set: str
    """Its files are still there."""
    upload: str
    running: str
    measured: str
    failed: str


class System:
    """A database with its data folder."""

    def __init__(self, url: str, data_dir: Path, *, clock: Clock = time.time) -> None:
        self.url = url
        self.data_dir = data_dir
        self.store = Store(url, clock=clock)

    def close(self) -> None:
        self.store.close()

    def kill(self, point: tuple[str, str, str, int], *arguments: str, **environment: str) -> None:
        """Run a command over it in a process that is killed at a point."""
        own = {"SDS_CLIP_DATABASE_URL": self.url, "SDS_CLIP_DATA_DIR": str(self.data_dir)}
        done = subprocess.run(
            [sys.executable, "-m", "tests.app.backup.killed", *map(str, point), *arguments],
            env={**os.environ, **own, **environment},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    def fill(self) -> Made:
        """Make everything."""
        self.store.migrate()
        store = self.store
        base = store.versions.register(NewVersion("b" * 64, None, {"n": None}, 0, base="demo")).id
        version = self.publish("one")
        other = self.publish("two")
        # A version may have a base that was registered, or registered again, after it.
        late = store.versions.register(NewVersion("a" * 64, None, {}, 0)).id
        self.publish("three", base_version=late)
        for to in (other, version):
            store.aliases.promote(Move("default", "me", "it is better", None, metrics={"x": 0.1}), to)
        archive_set, shard_set, upload = self.add_archive(), self.add_shards(), self.add_upload()
        store.datasets.add(name="registered", format="pairs", source={"path": "/sets/x"})
        deleted_set = store.datasets.delete(self.add_archive()).id
        store.jobs.submit(NewJob(JobKind.FINETUNE, {"n": 1}, owner="me", idempotency_key="once"))
        failed = self.claim(self.submit())
        self.checkpoint(failed, 3)
        store.leases.fail(Lease.of(failed), error())
        measured = self.claim(self.submit(JobKind.EVALUATE))
        store.leases.succeed(Lease.of(measured), result={"files": {"report": self.report(measured)}})
        running = self.claim(self.submit(datasets=(archive_set,), versions=(version,)))
        for step in (10, 20):
            self.checkpoint(running, step)
        store.leases.event(Lease.of(running), "It trains. \u00e9\u4e16", data={"ratio": 1 / 3})
        store.leases.points(Lease.of(running), {10: {"loss": 0.25}, 20: {"loss": 1e-9}})
        return Made(
            base, version, archive_set, shard_set, deleted_set, upload, running.id, measured.id, failed.id
        )

    def publish(self, weights: str, **values: Any) -> str:
        version = hashlib.sha256(weights.encode()).hexdigest()
        folder = self.data_dir / "versions" / version
        folder.mkdir(parents=True)
        (folder / CONFIG_FILE).write_text("{}")
        (folder / "model.safetensors").write_bytes(weights.encode() * 1000)
        manifest = write_manifest(folder, version, "job", {})
        new = NewVersion(version, f"versions/{version}", {"weights": weights}, manifest.size_bytes, **values)
        return self.store.versions.register(new).id

    def add_archive(self) -> str:
        """A checked data set, as it is unpacked from an archive."""
        return self._add(self._unpack, {"upload": "archive"})

    def add_shards(self) -> str:
        contents = [b"first shard" * 99, b"second shard" * 99]
        hashes = [hashlib.sha256(content).hexdigest() for content in contents]

        def write(folder: Path) -> None:
            (folder / SHARDS).mkdir()
            for index, content in enumerate(contents):
                (folder / SHARDS / shard_name(index)).write_bytes(content)

        return self._add(write, {"upload": "shards", "sha256": hashes})

    def add_upload(self) -> str:
        """An upload that waits for its check."""
        dataset = self.store.datasets.add(name="waits", format="pairs", source={"upload": "archive"})
        with DatasetFolders(self.data_dir / "datasets").claim(dataset.id) as claim:
            (claim.folder / ARCHIVE).write_bytes(b"an archive")
            claim.keep_upload()
        return dataset.id

    def submit(self, kind: JobKind = JobKind.FINETUNE, **options: Any) -> str:
        return self.store.jobs.submit(NewJob(kind, {"steps": 100}, **options))[0].id

    def claim(self, job_id: str) -> Job:
        kind = self.store.jobs.get(job_id).kind
        job = self.store.leases.claim(kind, "slot", 60)
        while job is not None and job.id != job_id:
            job = self.store.leases.claim(kind, "slot", 60)
        assert job is not None
        return job

    def checkpoint(self, job: Job, step: int) -> Path:
        run = self.data_dir / "jobs" / job.id / str(job.fence) / "run"
        folder = run / "checkpoints" / checkpoint_name(step)
        folder.mkdir(parents=True)
        tensors = f"tensors of {job.id} at {step}".encode() * 1000
        (folder / "state.safetensors").write_bytes(tensors)
        description = {"step": step, "sha256": hashlib.sha256(tensors).hexdigest()}
        (folder / "state.json").write_text(json.dumps(description))
        with (run / "log.jsonl").open("a") as log:
            log.write(json.dumps({"step": step}) + "\n")
        return folder

    def report(self, job: Job) -> str:
        """The path of a report in the data folder."""
        path = f"jobs/{job.id}/{job.fence}/{REPORT}"
        (self.data_dir / path).parent.mkdir(parents=True)
        (self.data_dir / path).write_text("<html>")
        return path

    def rows(self) -> list[str]:
        """All rows that a backup has, in no order."""
        return rows_of(self.store.database)

    def files(self) -> dict[str, bytes]:
        """The files of versions, data sets and jobs."""
        return {
            path.relative_to(self.data_dir).as_posix(): path.read_bytes()
            for name in ("versions", "datasets/sets", "datasets/uploads", "jobs")
            for path in (self.data_dir / name).rglob("*")
            if path.is_file()
        }

    def check(self) -> Report:
        return check_integrity(self.store.database, self.data_dir)

    def _unpack(self, folder: Path) -> None:
        (folder / FILES / "images" / "empty").mkdir(parents=True)
        (folder / FILES / "captions.json").write_text("[]")
        (folder / FILES / "images" / "\u00e9.png").write_bytes(b"a picture" * 100)
        write_hashes(folder)

    def _add(self, write: Any, source: dict[str, Any]) -> str:
        dataset = self.store.datasets.add(format="pairs", source=source)
        with DatasetFolders(self.data_dir / "datasets").claim(dataset.id) as claim:
            write(claim.folder)
            claim.publish()
        while (lease := claimed_check(self.store)).job_id != check_of(dataset.id):
            pass
        self.store.datasets.accept(lease, content_hash="c" * 64, counts={"samples": 1})
        return dataset.id


def rows_of(database: Database) -> list[str]:
    with database.reading() as connection:
        return sorted(json.dumps(row, sort_keys=True) for row in read_rows(connection))


def error() -> JobError:
    return JobError("out_of_memory", "The GPU has too little memory.", "batch_size")
