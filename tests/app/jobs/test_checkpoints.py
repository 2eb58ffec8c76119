"""The checkpoints of a job, as its workers leave them."""

from pathlib import Path
from typing import Any

from sds_clip.models.run_files import CHECKPOINTS, DESCRIPTION_FILE, TENSORS_FILE, checkpoint_name
from tests.app.jobs.conftest import Service
from tests.databases import on_both


def write(service: Service, job: str, fence: int, step: int, size_bytes: int) -> Path:
    folder = (
        service.settings.data_dir / "jobs" / job / str(fence) / "run" / CHECKPOINTS / checkpoint_name(step)
    )
    folder.mkdir(parents=True)
    (folder / TENSORS_FILE).write_bytes(bytes(size_bytes))
    (folder / DESCRIPTION_FILE).write_text("{}")
    return folder


def listed(service: Service, job: str) -> list[dict[str, Any]]:
    answer = service.client.get(f"/jobs/{job}/checkpoints")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


@on_both
def test_checkpoints_have_their_size_and_the_last_metrics_before_them(service: Service) -> None:
    job, lease = service.begin()
    service.store.leases.points(lease, {25: {"loss": 2.0}, 50: {"loss": 1.0}, 75: {"loss": 0.5}})
    for step in (10, 60):
        write(service, job, 1, step, 100 + step)

    first, second = listed(service, job)

    assert (first["step"], first["size_bytes"], first["newest"], first["metrics"]) == (10, 112, False, None)
    assert (second["step"], second["size_bytes"], second["newest"]) == (60, 162, True)
    assert (second["metrics"]["step"], second["metrics"]["values"]) == (50, {"loss": 1.0})


def test_links_of_a_later_attempt_are_not_listed_twice(service: Service) -> None:
    job = str(service.finetune()["id"])
    write(service, job, 2, 40, 10)
    write(service, job, 10, 40, 20)

    assert [(each["step"], each["size_bytes"]) for each in listed(service, job)] == [(40, 22)]


def test_unfinished_checkpoint_is_not_listed(service: Service) -> None:
    job = str(service.finetune()["id"])
    folder = write(service, job, 1, 40, 10)
    folder.rename(folder.with_name(f".{folder.name}"))

    assert listed(service, job) == []


def test_job_without_files_has_no_checkpoints(service: Service) -> None:
    assert listed(service, service.finetune()["id"]) == []
