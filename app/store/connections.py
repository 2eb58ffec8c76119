"""The connections that PostgreSQL allows, which limit how many services and workers there may be."""

import logging

from sqlalchemy import func, select, text

from sds_clip.app.store.database import Database
from sds_clip.app.store.tables import workers
from sds_clip.app.store.workers import LIVING_S

logger = logging.getLogger(__name__)

PER_WORKER = 4
"""What a worker uses while it runs a job: two of its own, and two of the job's process."""
_FULL = 0.8
_LIMIT = text(
    "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int, "
    "(SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL)"
)


def warn_if_few(database: Database, now: float) -> None:
    """Log a warning if most connections are in use, or will be once all living workers run jobs."""
    if database.is_sqlite:
        return
    with database.reading() as connection:
        limit, used = connection.execute(_LIMIT).one()
        living = select(func.count()).select_from(workers).where(workers.c.seen_at >= now - LIVING_S)
        count = connection.execute(living).scalar_one()
    if max(used, PER_WORKER * count) > _FULL * limit:
        logger.warning(
            "PostgreSQL allows %d connections. %d are in use, and %d living workers need about %d. Raise its "
            "max_connections before you start more processes.",
            limit,
            used,
            count,
            PER_WORKER * count,
        )
