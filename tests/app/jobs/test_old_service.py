"""A service whose database a newer program has migrated beyond it."""

from collections.abc import Callable

import pytest
from sqlalchemy import text

from tests.app.jobs.conftest import Service
from tests.app.serving.swapping import MATCH
from tests.databases import on_both
from tests.worker.waiting import until


@on_both
def test_service_that_has_become_too_old_matches_and_leaves_the_database_alone(
    make_service: Callable[..., Service], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sds_clip.app.backend.CHECK_PROGRAM_EVERY_S", 0.05)
    service = make_service()
    assert service.client.get("/jobs").status_code == 200
    until(lambda: "sds_clip_clock_skew_seconds" in service.client.get("/metrics").text)
    with service.store.database.writing() as connection:
        connection.execute(text("UPDATE oldest_program SET revision = '9999'"))
    until(lambda: service.client.get("/jobs").status_code == 503)
    assert service.client.post("/match", json=MATCH).status_code == 200
    assert "start the newer release" in caplog.text
