"""Every answer tells browsers not to guess its type, and caches not to keep it, unless it may be kept."""

import pytest
from fastapi import FastAPI
from httpx import Response

from sds_clip.app.edge.auth import declared
from sds_clip.app.store.states import JobStatus
from tests.app.jobs.conftest import Quick, Service
from tests.app.jobs.consoles import Console

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ASSETS = ("/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js")


def assert_private(answer: Response) -> None:
    where = f"{answer.request.method} {answer.request.url} {answer.status_code}"
    assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"], where
    assert answer.headers.get_list("Cache-Control") == ["no-store"], where


@pytest.mark.parametrize("signed_in", [True, False])
def test_every_route_by_every_method_answers_so_whatever_it_answers(
    console: Console, signed_in: bool
) -> None:
    app = console.service.client.app
    assert isinstance(app, FastAPI)
    headers = {"Authorization": f"Bearer {console.keys['all']}"} if signed_in else {}
    paths = {path for path, _, _ in declared(app)} - {"/", "/events", "/docs/{name}", "/assets/{name}"}
    assert len(paths) > 40
    seen = set()
    for path in sorted(
        paths | {"/nowhere", "/docs/nothing", "/assets/nothing", "/v2/nothing", "/jobs?limit=0"}
    ):
        for method in METHODS:
            address = path.replace("{", "").replace("}", "")
            answer = console.service.client.request(method, address, headers=headers)
            assert_private(answer)
            seen.add(answer.status_code)
    assert seen >= ({200, 404, 405, 415, 422} if signed_in else {200, 401, 404, 405})


def test_streams_files_and_unforeseen_errors_answer_so_too(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = quick.publish()
    (job,) = [job["id"] for job in quick.client.get("/jobs").json()["data"]]
    assert quick.store.jobs.get(job).status is JobStatus.SUCCEEDED
    path = quick.settings.data_dir / "jobs" / job / "1" / "run" / "log.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("{}\n")
    for address, media_type in (
        (f"/models/{version}/download", "application/x-tar"),
        (f"/jobs/{job}/log", "application/jsonl"),
        (f"/jobs/{job}/events", "text/event-stream"),
    ):
        answer = quick.client.get(address, headers={"Accept": media_type})
        assert answer.headers["Content-Type"].startswith(media_type)
        assert_private(answer)
    large = quick.client.post("/match", content=b"x", headers={"Content-Length": str(2**40)})
    assert large.status_code == 413
    assert_private(large)
    app = quick.client.app
    assert isinstance(app, FastAPI)
    monkeypatch.setattr(app.state, "metrics", None)  # a mistake of ours
    broken = quick.client.get("/metrics")
    assert broken.status_code == 500
    assert_private(broken)


def test_files_of_a_page_are_kept(service: Service) -> None:
    for address in ASSETS:
        answer = service.client.get(address)
        assert answer.headers["Cache-Control"] == "max-age=3600"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
