"""The store: jobs, events, metrics, data sets, versions, aliases and their audit, in SQLite or PostgreSQL.

    store = Store("sqlite:////data/sds-clip.db")      # or postgresql://...
    store.migrate()                                   # at the start of every process
    job, is_new = store.jobs.submit(NewJob(JobKind.FINETUNE, request))
    job = store.leases.claim(JobKind.FINETUNE, owner="slot-1", ttl_s=60)

    store.seen_by("alice").jobs.get(job.id)           # what one owner sees and may change

The package does not depend on HTTP, Celery or torch. Its parts:

    store.seen_by     a Workspace: the parts below up to `watch`, without other owners' records

    store.jobs        callers: submit, get, list, request_cancel/pause/resume/retry, withheld
    store.workers     beat, leave, list, living_queues, silent_since
    store.events      events, transitions, metrics of a job; prune
    store.datasets    add, get, list, delete; lack_checks, enlist_checks, checks, accept, reject
    store.versions    register, get, made, among, list, mark_damaged, delete, withheld
    store.aliases     get, all, promote, roll_back, lock, unlock, promotions
    store.watch       states, among, changed_since

    store.leases      workers: claim, renew, progress, event, points, release, suspend, fail, succeed, settle_abandoned
    store.retention   holdings, found, remove_job, claim_sweep, release_sweep
    store.overviews   read
"""

import time
from collections.abc import Callable

from sds_clip.app.settings import STORE_TIMEOUT_S
from sds_clip.app.store.aliases import Aliases
from sds_clip.app.store.clock import Clock, DatabaseClock
from sds_clip.app.store.connections import warn_if_few
from sds_clip.app.store.database import Database
from sds_clip.app.store.datasets import Datasets
from sds_clip.app.store.job_events import JobEvents
from sds_clip.app.store.jobs import JobQueries
from sds_clip.app.store.leases import JobLeases
from sds_clip.app.store.migrate import check_program, migrate
from sds_clip.app.store.overview import Overviews
from sds_clip.app.store.retention import RetentionRecords
from sds_clip.app.store.versions import Versions
from sds_clip.app.store.watch import Watch
from sds_clip.app.store.workers import Workers

__all__ = ["Clock", "SeenBy", "Store", "Workspace"]


class Workspace:
    """What one owner sees and may change. For it, the records of other owners do not exist.

    The owner None stands for all owners.
    """

    def __init__(self, database: Database, clock: Clock, owner: str | None) -> None:
        self.now = clock
        """The database's time, in seconds since the epoch."""
        self.events = JobEvents(database, clock, owner)
        self.jobs = JobQueries(database, clock, owner)
        self.workers = Workers(database, clock, owner)
        self.datasets = Datasets(database, clock, owner)
        self.versions = Versions(database, clock, owner)
        self.aliases = Aliases(database, clock, owner)
        self.watch = Watch(database, clock, owner)


SeenBy = Callable[[str | None], Workspace]
"""`Store.seen_by`: all that the services behind the routes have of the store, so that none can forget its caller."""


class Store(Workspace):
    """Everything that is kept in the database, shared by the threads of one process.

    A forked child opens its own.

    `clock` is the database's, unless a test has its own. `timeout_s` limits how long an operation waits for a lock, a
    connection or a statement.

    Raises: ConfigurationError for a URL of neither SQLite nor PostgreSQL.
    """

    def __init__(self, url: str, *, clock: Clock | None = None, timeout_s: float = STORE_TIMEOUT_S) -> None:
        clock = clock or DatabaseClock()
        followed = clock if isinstance(clock, DatabaseClock) else None
        self.database = Database(url, timeout_s=timeout_s, clock=followed)
        super().__init__(self.database, clock, None)
        self.leases = JobLeases(self.database, clock)
        self.retention = RetentionRecords(self.database, clock)
        self.overviews = Overviews(self.database, clock)

    def seen_by(self, owner: str | None) -> Workspace:
        return Workspace(self.database, self.now, owner)

    def clock_skew_s(self) -> float:
        """How far the clock of this host is ahead of the database's."""
        return time.time() - self.now()

    def migrate(self) -> None:
        """Bring the tables up to date, and warn if connections are few. It is safe while other processes do the same.

        Raises: StoreUnavailable; ConfigurationError if this program is too old for the tables, or others are running
        that would be too old afterwards.
        """
        migrate(self.database, self.now)
        warn_if_few(self.database, self.now())

    def check_program(self) -> None:
        """Check that a newer program has not changed the tables in a way that this one does not know.

        Raises: StoreUnavailable; ConfigurationError if this program must end.
        """
        check_program(self.database)

    def close(self) -> None:
        self.database.close()
