"""The store: jobs, events, metrics, data sets, versions, aliases and their audit, in SQLite or PostgreSQL.

    store = Store("sqlite:////data/sds-clip.db")      # or postgresql://...
    store.migrate()                                   # at the start of every process
    job, is_new = store.jobs.submit(NewJob(JobKind.FINETUNE, request))
    job = store.leases.claim(JobKind.FINETUNE, owner="slot-1", ttl_s=60)

The package does not depend on HTTP, Celery or torch. Its parts:

    store.jobs        callers: submit, get, list, request_cancel/pause/resume/retry, withheld
    store.leases      workers: claim, renew, progress, event, points, release, suspend, fail, succeed
    store.reaper      settle_abandoned
    store.workers     beat, leave, list, living_queues
    store.events      events, transitions, metrics of a job; prune
    store.datasets    add, get, list, claim_check, renew_check, release_check, check_died, accept, reject, delete
    store.versions    register, get, list, mark_damaged, delete
    store.aliases     get, all, promote, roll_back, promotions
    store.overviews   read
"""

import time

from app.settings import STORE_TIMEOUT_S
from app.store.database import Clock, Database
from app.store.datasets import Datasets
from app.store.job_events import JobEvents
from app.store.jobs import JobQueries
from app.store.leases import JobLeases
from app.store.migrate import migrate
from app.store.overview import Overviews
from app.store.reaper import Reaper
from app.store.versions import Aliases, Versions
from app.store.workers import Workers

__all__ = ["Clock", "Store"]


class Store:
    """Everything that is kept in the database, shared by the threads of one process.

    A forked child opens its own.

    `timeout_s` limits how long an operation waits for a lock, a connection or a statement.

    Raises: ConfigurationError for a URL of neither SQLite nor PostgreSQL.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock = time.time,
        timeout_s: float = STORE_TIMEOUT_S,
        max_events: int = 10_000,
    ) -> None:
        self.database = Database(url, timeout_s=timeout_s)
        self.events = JobEvents(self.database, clock, max_events=max_events)
        self.jobs = JobQueries(self.database, clock)
        self.leases = JobLeases(self.database, clock, self.events)
        self.reaper = Reaper(self.database, clock)
        self.workers = Workers(self.database, clock)
        self.datasets = Datasets(self.database, clock)
        self.versions = Versions(self.database, clock)
        self.aliases = Aliases(self.database, clock)
        self.overviews = Overviews(self.database, clock)

    def migrate(self) -> None:
        """Bring the tables up to date. It is safe while other processes do the same.

        Raises: StoreUnavailable; ConfigurationError if the tables are newer than this program.
        """
        migrate(self.database)

    def close(self) -> None:
        self.database.close()
