"""Who may do what, and what is said where there is no database or none that answers."""

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from sds_clip.app.backend import migrate_early
from sds_clip.app.errors import ConfigurationError
from sds_clip.app.keys import create_key
from sds_clip.app.main import create_app
from sds_clip.app.settings import Settings
from sds_clip.models.clip.model import Clip
from tests.app.jobs.conftest import Service, error_of, running
from tests.app.serving.swapping import MATCH
from tests.databases import Databases, held, on_both
from tests.worker.waiting import until

VERSION = "0" * 64
TRAIN = [
    ("POST", "/finetune"), ("POST", "/evaluate"), ("POST", "/datasets"), ("GET", "/datasets"),
    ("GET", "/datasets/ds_1"), ("DELETE", "/datasets/ds_1"), ("GET", "/jobs"), ("GET", "/jobs/job_1"),
    ("GET", "/jobs/job_1/events"), ("GET", "/jobs/job_1/metrics"), ("GET", "/jobs/job_1/report"),
    ("GET", "/jobs/job_1/log"), ("GET", f"/models/{VERSION}/log"),
    ("POST", "/jobs/job_1/cancel"), ("POST", "/jobs/job_1/pause"), ("POST", "/jobs/job_1/resume"),
    ("POST", "/jobs/job_1/retry"), ("DELETE", "/jobs/job_1"), ("GET", "/workers"),
    ("GET", f"/models/{VERSION}/download"),
]  # fmt: skip
CHANGE = [
    ("POST", f"/models/{VERSION}/promote"), ("POST", "/models/default/rollback"), ("POST", "/models/default/remove"),
    ("DELETE", f"/models/{VERSION}"),
]  # fmt: skip
ADMIN = [("POST", "/models/default/lock"), ("POST", "/models/default/unlock")]
INFER = [("GET", "/models"), ("GET", f"/models/{VERSION}"), ("GET", "/models/status")]


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, sqlite_databases: Databases, small_clip: Clip
) -> Iterator[tuple[Service, dict[str, str]]]:
    """A service with a key for each scope."""
    folder = tmp_path_factory.mktemp("guarded")
    keys = {scope: create_key(folder / "keys.json", scope, [scope]) for scope in ("infer", "train", "admin")}
    database_url = sqlite_databases.url(sqlite_databases.migrated())
    with running(
        small_clip, data_dir=folder, database_url=database_url, keys_file=folder / "keys.json"
    ) as service:
        yield service, keys


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("scopes", "routes"),
    [(["train"], TRAIN), (["train", "admin"], CHANGE), (["admin"], ADMIN), (["infer"], INFER)],
    ids=["train", "change", "admin", "infer"],
)
def test_every_route_takes_its_own_scopes_and_no_other(
    guarded: tuple[Service, dict[str, str]], scopes: list[str], routes: list[tuple[str, str]]
) -> None:
    service, keys = guarded

    for method, path in routes:
        error_of(service.client.request(method, path), 401)
        for other in {"infer", "train", "admin"} - set(scopes):
            error = error_of(service.client.request(method, path, headers=_bearer(keys[other])), 403)
            assert error["code"] == "missing_scope"
        for scope in scopes:
            answer = service.client.request(method, path, headers=_bearer(keys[scope]))
            assert answer.status_code not in (401, 403, 500), (path, answer.text)


def test_without_a_database_the_routes_say_what_to_do(client: TestClient) -> None:
    for method, path in (*TRAIN, *CHANGE, *ADMIN, ("GET", f"/models/{VERSION}")):
        error = error_of(client.request(method, path), 501)
        assert (error["code"], "sds-clip up" in error["message"]) == ("no_database", True), path


def test_without_a_database_serving_is_as_it_was(client: TestClient) -> None:
    listed = client.get("/models").json()

    assert [model["name"] for model in listed["models"]] == ["small"]
    assert (listed["registry"], listed["versions"], listed["aliases"]) == ("none", [], [])
    assert client.post("/match", json=MATCH).json()["model"]["name"] == "small"


@on_both
def test_while_the_database_is_away_jobs_are_503_and_images_are_matched(
    make_service: Callable[..., Service], database_url: str
) -> None:
    service = make_service(store_timeout_s=0.2)
    body = service.request()

    with held(database_url):
        for method, path, json in (
            ("GET", "/jobs", None), ("POST", "/finetune", body), ("GET", "/datasets", None),
            ("GET", f"/models/{VERSION}", None),
        ):  # fmt: skip
            answer = service.client.request(method, path, json=json)
            assert error_of(answer, 503)["code"] == "store_unavailable"
            assert int(answer.headers["Retry-After"]) > 0
        listed = service.client.get("/models").json()
        assert (listed["registry"], [model["name"] for model in listed["models"]]) == (
            "away",
            ["small", "default"],
        )
        assert service.client.post("/match", json=MATCH).status_code == 200

    assert service.client.post("/finetune", json=body).status_code == 202


@on_both
def test_requests_that_wait_for_the_database_hold_up_no_other(
    make_service: Callable[..., Service], database_url: str
) -> None:
    service = make_service(store_timeout_s=3, store_threads=1)
    statuses: list[int] = []
    asking = [
        threading.Thread(target=lambda: statuses.append(service.client.get("/jobs").status_code))
        for _ in range(40)
    ]

    with held(database_url):
        for thread in asking:
            thread.start()
        until(lambda: len(statuses) >= 7)  # one thread and 32 that wait for it: the others are turned away
        assert service.client.post("/match", json=MATCH).status_code == 200
    for thread in asking:
        thread.join()

    assert set(statuses) <= {200, 503}
    assert statuses.count(503) >= 7


@on_both
def test_service_starts_without_its_database_and_uses_it_once_it_is_there(
    tmp_path: Path, database_url: str, small_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.backend._TRY_AGAIN_S", 0.05)
    monkeypatch.setattr(
        sys.modules["sds_clip.app.store.migrate"], "_WAIT_S", 1
    )  # the package has a function of this name
    settings = Settings(data_dir=tmp_path / "data", database_url=database_url, store_timeout_s=0.1)

    with held(database_url):
        migrate_early(settings)
        client = TestClient(
            create_app(settings, {"local-dir:small": small_clip}), base_url="http://localhost"
        )
        client.__enter__()
        error_of(client.get("/jobs"), 503)
        assert error_of(client.post("/match", json=MATCH), 503)["code"] == "registry_away"
        assert client.post("/match", json={**MATCH, "model": "local-dir:small"}).status_code == 200
    until(lambda: client.get("/jobs").status_code == client.post("/match", json=MATCH).status_code == 200)
    client.__exit__(None, None, None)


@pytest.mark.parametrize("url", ["mysql://host/name", "nonsense", "sqlite://"])
def test_database_that_cannot_be_used_stops_the_start(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError):
        migrate_early(Settings(data_dir=tmp_path, database_url=url))


def test_root_that_is_no_folder_stops_the_start(make_service: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not a folder"):
        make_service(dataset_roots=[tmp_path / "none"])
