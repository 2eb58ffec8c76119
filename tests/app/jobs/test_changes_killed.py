"""All changes, followed by the client while the service is killed and started again."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from sds_clip import Client
from sds_clip.app.keys import create_key, delete_key
from sds_clip.app.store import Store
from tests.app.jobs.conftest import Service, error_of
from tests.app.jobs.streamed import claim, submit
from tests.app.serverside import free_port, running_server
from tests.worker.waiting import until

KILLS = 2
JOBS_BETWEEN = 5


@contextlib.contextmanager
def working(store: Store) -> Iterator[list[str]]:
    """While jobs come, run and end, one after the other. Yields the ids of those that have ended."""
    done, ended = threading.Event(), list[str]()

    def work() -> None:
        while not done.wait(0.5):
            job = submit(store)
            store.leases.succeed(claim(store))
            ended.append(job.id)

    with ThreadPoolExecutor() as threads:
        worked = threads.submit(work)
        try:
            yield ended
        finally:
            done.set()
            worked.result()


@pytest.mark.long
def test_client_is_told_of_every_end_of_a_job_over_killed_services(
    small_reference: str, tmp_path: Path
) -> None:
    database_url, port = f"sqlite:///{tmp_path}/jobs.db", free_port()
    ends, stop = set[str](), threading.Event()

    def follow() -> None:
        with Client(f"http://127.0.0.1:{port}") as client:
            for name, record in client.changes():
                if name == "job" and record["status"] == "succeeded":
                    ends.add(record["id"])
                if stop.is_set():
                    return

    with contextlib.ExitStack() as closing:
        threads = closing.enter_context(ThreadPoolExecutor())
        store = closing.enter_context(contextlib.closing(Store(database_url)))
        store.migrate()
        with working(store) as ended:
            for number in range(KILLS + 1):
                with running_server(
                    tmp_path, "--model", small_reference, port=port, SDS_CLIP_DATABASE_URL=database_url
                ):
                    if number == 0:
                        following = threads.submit(follow)
                    wanted = len(ends) + JOBS_BETWEEN
                    until(lambda wanted=wanted: len(ends) > wanted, 120)  # type: ignore[misc]
                    if number == 0:
                        first = len(ended)
                # The server was killed, as at the end of each of these contexts.
        with running_server(
            tmp_path, "--model", small_reference, port=port, SDS_CLIP_DATABASE_URL=database_url
        ):
            until(lambda: set(ended[first:]) <= ends, 120)
            stop.set()
            submit(store)
            following.result(120)


@pytest.mark.long
def test_streams_of_a_key_are_bounded_and_end_with_it(small_reference: str, tmp_path: Path) -> None:
    keys, url = tmp_path / "keys.json", f"sqlite:///{tmp_path}/jobs.db"
    secrets = {name: create_key(keys, name, ["train"]) for name in ("trainer", "other")}
    headers = {name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}
    with running_server(
        tmp_path,
        "--model",
        small_reference,
        SDS_CLIP_DATABASE_URL=url,
        SDS_CLIP_KEYS_FILE=str(keys),
        SDS_CLIP_KEY_SHARE="0.02",  # one of 64 streams
    ) as server:
        changes = f"{server.url}/events"
        with httpx.stream("GET", changes, headers=headers["trainer"], timeout=30) as following:
            assert following.headers["Content-Type"].startswith("text/event-stream")
            lines = following.iter_lines()
            assert "default" in next(line for line in lines if line.startswith("data"))
            refused = httpx.get(changes, headers=headers["trainer"])
            assert (refused.status_code, "max_event_streams_per_key" in refused.text) == (429, True)
            with httpx.stream("GET", changes, headers=headers["other"], timeout=30) as others:
                assert others.status_code == 200
            delete_key(keys, "trainer")
            assert not [line for line in lines if line.startswith("data")]
        assert httpx.get(changes, headers=headers["trainer"]).status_code == 401


@pytest.mark.parametrize("last", ["x", "-1"])
def test_last_event_id_that_is_no_number_is_refused(refusing: Service, last: str) -> None:
    answer = refusing.client.get("/events", headers={"Last-Event-ID": last})

    assert error_of(answer, 422)["param"] == "Last-Event-ID"


def test_page_in_a_browser_which_can_send_no_header_goes_on_after_a_number(
    small_reference: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    with running_server(tmp_path, "--model", small_reference, SDS_CLIP_DATABASE_URL=url) as server:

        def first(headers: dict[str, str]) -> str:
            """The first event of a stream after a number of 1970, which is too long ago to go on."""
            with httpx.stream("GET", f"{server.url}/events?after=1", headers=headers, timeout=30) as followed:
                return next(line for line in followed.iter_lines() if line.startswith("event"))

        assert first({}) == "event: reset"
        assert first({"Last-Event-ID": str(10**15)}) == "event: alias"
