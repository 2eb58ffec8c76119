"""Rows that name files elsewhere, as a restored archive could have brought them before a restore checked them."""

from pathlib import Path

import pytest
from sqlalchemy import insert, update

from sds_clip.app.store.records import NewVersion, VersionStatus
from sds_clip.app.store.states import JobStatus
from sds_clip.app.store.tables import jobs, versions
from tests.app.jobs.conftest import Service, error_of

VERSION = "d" * 64


@pytest.fixture
def victim(service: Service) -> Path:
    """A folder beside the data folder, which has what a job, a version and an evaluation have."""
    folder = service.settings.data_dir.parent / "victim" / "precious"
    for name in ("log.jsonl", "1/run/log.jsonl"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}\n")
    return folder


@pytest.fixture(params=["../victim/precious", "absolute", "link"])
def path(request: pytest.FixtureRequest, service: Service, victim: Path) -> str:
    """A way to it, from the data folder."""
    if request.param == "absolute":
        return str(victim)
    if request.param == "link":
        link = service.settings.data_dir / "versions" / "link"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(victim)
        return "versions/link"
    return str(request.param)


def test_version_s_files_elsewhere_are_neither_read_nor_removed(
    service: Service, victim: Path, path: str
) -> None:
    service.store.versions.register(NewVersion(VERSION, path, {}, 1))
    before = sorted(victim.rglob("*"))
    for status in VersionStatus:
        with service.store.database.writing() as connection:
            connection.execute(update(versions).where(versions.c.id == VERSION).values(status=status))

        refused = service.client.delete(f"/models/{VERSION}")

        assert error_of(refused, 409)["code"] == "files_outside"
        assert str(victim) not in refused.text
        assert sorted(victim.rglob("*")) == before
        assert service.store.versions.get(VERSION).status is status
        assert error_of(service.client.get(f"/models/{VERSION}/log"), 409)["code"] == "files_outside"
        if status is VersionStatus.READY:
            download = service.client.get(f"/models/{VERSION}/download")
            assert error_of(download, 409)["code"] == "files_outside"
            promoted = service.client.post(f"/models/{VERSION}/promote", json={"reason": "try"})
            assert error_of(promoted, 409)["code"] == "files_outside"


def test_job_s_files_elsewhere_are_neither_read_nor_removed(service: Service, victim: Path) -> None:
    job = service.store.jobs.get(service.finetune()["id"])
    hostile = f"../../{victim.parent.name}/{victim.name}"
    with service.store.database.writing() as connection:
        row = connection.execute(jobs.select().where(jobs.c.id == job.id)).mappings().one()
        ended = {"status": JobStatus.CANCELLED, "finished_at": 1.0, "name": "hostile"}
        connection.execute(insert(jobs).values({**row, "id": hostile, **ended}))
    before = sorted(victim.rglob("*"))

    for method, route in (("DELETE", ""), ("GET", "/checkpoints"), ("GET", "/log")):
        answer = service.client.request(method, f"/jobs/hostile{route}")
        assert error_of(answer, 409)["code"] == "files_outside"

    assert sorted(victim.rglob("*")) == before
