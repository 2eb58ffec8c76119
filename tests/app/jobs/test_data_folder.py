"""A service whose data folder goes away, or is another one when it starts."""

from pathlib import Path

import pytest

from sds_clip.app import backend
from sds_clip.app.backend import migrate_early
from sds_clip.app.data_folder import DataFolder, WrongDataFolder
from sds_clip.app.registry.store_source import registry_of
from sds_clip.app.settings import Settings
from sds_clip.app.store import Store
from sds_clip.app.store.records import NewVersion
from tests.app.jobs.conftest import Service
from tests.app.serving.swapping import MATCH
from tests.worker.waiting import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "WATCH_FOLDER_EVERY_S", 0.05)


def trouble(service: Service) -> str | None:
    found: str | None = service.client.get("/models/status").json()["processes"][0]["data_folder_error"]
    return found


def is_up(service: Service) -> bool:
    return "sds_clip_data_folder_up 1.0" in service.client.get("/metrics").text


def test_service_whose_folder_goes_away_answers_images_and_refuses_what_needs_files_until_it_is_back(
    service: Service,
) -> None:
    job, request = service.finetune(), service.request()
    folder, away = service.settings.data_dir, service.settings.data_dir.with_name("away")
    assert (trouble(service), is_up(service)) == (None, True)
    folder.rename(away)
    folder.mkdir()  # where it was mounted
    until(lambda: trouble(service))
    assert (trouble(service) or "").startswith("The data folder is not the data folder of the database")
    assert not is_up(service)
    for refused in (
        service.client.post("/finetune", json=request),
        service.client.delete(f"/jobs/{job['id']}"),
        service.client.get(f"/jobs/{job['id']}/log"),
    ):
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "data_folder_away")
        assert "Retry-After" in refused.headers
    assert service.client.get("/ready").status_code == 200
    assert service.client.post("/match", json=MATCH).status_code == 200
    assert service.client.get(f"/jobs/{job['id']}").status_code == 200
    assert service.client.post(f"/jobs/{job['id']}/cancel").status_code == 200
    for left in sorted(folder.rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    folder.rmdir()
    away.rename(folder)
    until(lambda: trouble(service) is None)
    assert is_up(service)
    assert service.client.post("/finetune", json=request).status_code == 202


def test_what_another_folder_lacks_is_not_recorded_as_damaged(service: Service, tmp_path: Path) -> None:
    store = service.store
    store.versions.register(NewVersion("a" * 64, "versions/a", {}, 1))
    wrong = DataFolder(store.database, tmp_path / "unmounted")
    registry_of(store, tmp_path / "unmounted", wrong).mark_damaged("a" * 64, True)
    assert store.versions.get("a" * 64).damaged_at is None
    right = DataFolder(store.database, service.settings.data_dir)
    registry_of(store, service.settings.data_dir, right).mark_damaged("a" * 64, True)
    assert store.versions.get("a" * 64).damaged_at is not None


def test_service_with_another_folder_does_not_start_unless_its_state_has_what_it_served(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url, state_dir=tmp_path / "state")
    migrate_early(settings)
    wrong = settings.model_copy(update={"data_dir": tmp_path / "unmounted"})
    with pytest.raises(WrongDataFolder, match="SDS_CLIP_DATA_DIR"):
        migrate_early(wrong)
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "aliases.json").write_text("{}")
    migrate_early(wrong)
    assert "The service starts with what its state folder has" in caplog.text
    with pytest.raises(WrongDataFolder):
        migrate_early(wrong.model_copy(update={"state_dir": None}))
    store = Store(database_url)
    assert DataFolder(store.database, settings.data_dir).look()
    store.close()
