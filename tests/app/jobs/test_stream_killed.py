"""Events of a job, followed by the client while the service is killed and started again."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sds_clip import Client
from sds_clip.app.store import Store
from sds_clip.app.store.records import Lease
from tests.app.jobs.streamed import claim, submit
from tests.app.serverside import free_port, running_server
from tests.worker.waiting import until

KILLS = 2
EVENTS_BETWEEN = 20


@contextlib.contextmanager
def writing(store: Store, lease: Lease) -> Iterator[None]:
    """While a worker writes one event after the other."""
    done = threading.Event()

    def write() -> None:
        while not done.wait(0.05):
            store.leases.event(lease, "event")

    with ThreadPoolExecutor() as threads:
        written = threads.submit(write)
        try:
            yield
        finally:
            done.set()
            written.result()


@pytest.mark.long
def test_client_follows_a_job_over_killed_services_without_losing_or_repeating_an_event(
    small_reference: str, tmp_path: Path
) -> None:
    database_url, port = f"sqlite:///{tmp_path}/jobs.db", free_port()
    seen: list[int] = []

    def follow(job_id: str) -> None:
        with Client(f"http://127.0.0.1:{port}") as client:
            for event in client.job(job_id).events():
                seen.append(event["id"])

    with contextlib.ExitStack() as closing:
        threads = closing.enter_context(ThreadPoolExecutor())
        store = closing.enter_context(contextlib.closing(Store(database_url)))
        store.migrate()
        job = submit(store)
        lease = claim(store, 3600)
        with writing(store, lease):
            for number in range(KILLS + 1):
                with running_server(
                    tmp_path, "--model", small_reference, port=port, SDS_CLIP_DATABASE_URL=database_url
                ):
                    if number == 0:
                        following = threads.submit(follow, job.id)
                    wanted = len(seen) + EVENTS_BETWEEN
                    until(lambda wanted=wanted: len(seen) > wanted, 120)  # type: ignore[misc]
                # The server was killed, as at the end of each of these contexts.
        store.leases.succeed(lease)
        with running_server(
            tmp_path, "--model", small_reference, port=port, SDS_CLIP_DATABASE_URL=database_url
        ):
            following.result(120)
        assert seen == list(range(1, store.jobs.get(job.id).event_count + 1))
