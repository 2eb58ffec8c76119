"""Two keys share one worker: a service, a broker and a worker as they are run, with small jobs and archives."""

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sds_clip.app.store import Store
from sds_clip.app.store.records import DatasetStatus
from sds_clip.app.store.states import JobStatus
from sds_clip.app.store.verdicts import check_of
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.valkey import Valkey
from tests.app.conftest import png
from tests.app.datasets.archives import tar_of
from tests.app.jobs.conftest import Keyed
from tests.worker.waiting import WorkerProcess, until, until_status

JOBS, ARCHIVES, ENTRIES = 200, 50, 2000


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "broker") as started:
        yield started


def pairs() -> bytes:
    lines = [{"file_name": f"{number}.png", "text": f"picture {number}"} for number in range(4)]
    pictures = {line["file_name"]: png(seed=number) for number, line in enumerate(lines)}
    return tar_of({**pictures, "metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()})


def empty_entries() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for number in range(ENTRIES):
            archive.addfile(tarfile.TarInfo(f"{number:06d}"))
    return buffer.getvalue()


def upload(keyed: Keyed, key: str, data: bytes) -> str:
    answer = keyed.ask(key, "POST", "/datasets", data={"format": "pairs"}, files={"file": ("a.tar", data)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def submit(keyed: Keyed, key: str, base: str, data: str, steps: int) -> str:
    options = {"steps": steps, "batch_size": 4, "warmup_steps": 1, "precision": "float32"}
    body = {"base": base, "objective": "clip", "training_data": data, "hyperparameters": options}
    answer = keyed.ask(key, "POST", "/finetune", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def claimed_between(store: Store, jobs: list[str], after: float, before: float) -> int:
    """How often a worker has taken one of these jobs meanwhile."""
    return sum(
        after < event.at < before and (event.data or {}).get("to") == JobStatus.RUNNING
        for job in jobs
        for event in store.events.transitions(job)
    )


@pytest.mark.long
def test_four_pairs_of_one_key_are_next_whatever_another_key_has_waiting(
    make_keyed: Callable[..., Keyed], broker: Valkey, tiny_folder: Path
) -> None:
    base = f"local-dir:{tiny_folder}"
    keyed = make_keyed(broker_url=broker.url, allowed_models=[base], max_open_jobs=10 * JOBS)
    store, settings = keyed.service.store, keyed.service.settings
    config = WorkerConfig(
        broker_url=broker.url,
        database_url=str(settings.database_url),
        data_dir=settings.data_dir,
        queue="finetune",
        device="cpu",
        threads=1,
        keep_warm=False,
        max_turn_s=2.0,
    )

    def is_ready(dataset: str) -> bool:
        found = store.datasets.get(dataset)
        assert found.status is not DatasetStatus.REJECTED, found
        return found.status is DatasetStatus.READY

    with WorkerProcess(config, "tests.worker.real_worker"):
        hers = upload(keyed, "alice", pairs())
        until(lambda: is_ready(hers))
        jobs = [submit(keyed, "alice", base, hers, steps=100_000) for _ in range(JOBS)]
        archive = empty_entries()
        checks = [check_of(upload(keyed, "alice", archive)) for _ in range(ARCHIVES)]
        until(lambda: store.jobs.get(jobs[0]).furthest_step > 0)

        his = upload(keyed, "bob", pairs())
        job = submit(keyed, "bob", base, his, steps=5)
        until(lambda: is_ready(his))
        until_status(store, job, JobStatus.SUCCEEDED)

    check, ended = store.jobs.get(check_of(his)), store.jobs.get(job)
    assert check.started_at is not None
    assert ended.started_at is not None
    # One that the slot takes at the very moment of the upload, or of the verdict, may come before.
    assert claimed_between(store, checks, check.created_at, check.started_at) <= 1
    assert claimed_between(store, jobs, ended.queued_at or 0.0, ended.started_at) <= 1
    assert any("Its turn was over" in each.message for each in store.events.transitions(jobs[0]))
    assert sum(store.jobs.get(each).fence == 0 for each in jobs) >= JOBS - 2
