"""Several real processes over one database."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import Pool

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store import Store
from sds_clip.app.store.migrate import MIGRATIONS
from sds_clip.app.store.records import Job, JobError, Lease, NewJob
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.app.store.tables import metadata
from tests.app.store import racing
from tests.app.store.conftest import submitted
from tests.databases import Databases

COUNT = 3
HEAD = max(file.name[:4] for file in (MIGRATIONS / "versions").glob("0*.py"))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with racing.processes(COUNT) as pool:
        yield pool


def test_processes_that_start_at_once_migrate_once(
    databases: Databases, pool: Pool, make_store: Callable[..., Store]
) -> None:
    url = databases.url(databases.empty())
    racing.race(pool, COUNT, racing.migrate, url)
    store = make_store(url)
    with store.database.reading() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]
    assert submitted(store).status is JobStatus.QUEUED


KILLED = """
import os, signal, sys
from alembic import op
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store import Store

add_column = op.add_column

def killing(*args, **options):
    add_column(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)

op.add_column = killing
Store(sys.argv[1]).migrate()
"""


def test_process_killed_in_a_migration_leaves_the_database_as_it_was(
    databases: Databases, make_store: Callable[..., Store]
) -> None:
    """It dies in the second migration, when the tables of the first one have been made."""
    url = databases.url(databases.empty())
    assert subprocess.run([sys.executable, "-c", KILLED, url]).returncode == -signal.SIGKILL
    store = make_store(url)
    with store.database.reading() as connection:
        assert inspect(connection).get_table_names() == []
    store.migrate()
    assert submitted(store).status is JobStatus.QUEUED


def test_migrations_make_the_tables_that_the_program_uses(store: Store) -> None:
    with store.database.reading() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []


def test_racing_workers_never_get_the_same_job(store: Store, url: str, pool: Pool) -> None:
    rounds = 8
    ids = [submitted(store).id for _ in range(rounds)]
    for job_id in ids[1:]:
        store.jobs.request_pause(job_id)
    # One job at a time is in the queue, and every worker reaches for it.
    won = []
    for job_id in ids:
        if job_id != ids[0]:
            store.jobs.request_resume(job_id)
        won.append(
            [win for wins in racing.race(pool, COUNT, racing.claim_each, url, 1) for win in wins if win]
        )
    assert won == [[(job_id, 1)] for job_id in ids]


def test_racing_workers_share_a_queue_without_losing_a_job(store: Store, url: str, pool: Pool) -> None:
    ids = [submitted(store).id for _ in range(30)]
    won = racing.race(pool, COUNT, racing.claim_all, url)
    # A worker may find the last jobs locked by another, which then takes them.
    assert sorted(job_id for wins in won for job_id in wins) == sorted(ids)


def test_verdicts_that_come_at_once_wait_for_each_other_in_one_order(
    databases: Databases, make_store: Callable[..., Store]
) -> None:
    """Otherwise PostgreSQL ends one of two after a second. Two sets of a job are judged at once, too."""
    store = make_store(databases.url(databases.empty()))
    store.migrate()
    for number in range(12):
        sets = tuple(store.datasets.add(format="pairs", source={}, owner="").id for _ in range(2))
        for n, needed in enumerate((sets, sets[::-1], sets[:1])):
            store.jobs.submit(NewJob(JobKind.FINETUNE, {"n": [number, n]}, owner="", datasets=needed))
    store.datasets.enlist_checks(FORMATS)
    claimed = [store.leases.claim(JobKind.CHECK, "w", 600) for _ in range(24)]

    def conclude(job: Job | None) -> None:
        assert job is not None
        lease = Lease.of(job)
        if int(job.id[-1], 36) % 2:
            store.datasets.reject(lease, problems=[])
        else:
            store.leases.fail(lease, JobError("files_unreadable", "The files cannot be read."))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(conclude, claimed))  # raises StoreUnavailable for a deadlock
    assert store.jobs.count(JobStatus.FAILED, JobKind.FINETUNE) == 36
