"""The time of everything in the database: on PostgreSQL the server's, so that hosts whose clocks differ agree on it."""

import logging
import time
from collections.abc import Callable

from sqlalchemy import Connection, text

logger = logging.getLogger(__name__)

Clock = Callable[[], float]
"""Seconds since the epoch, UTC: `DatabaseClock`, or a test's own clock."""

READ_EVERY_S = 10.0
WARN_ABOVE_S = 5.0
"""From here on the log warns that the clocks differ. `docker/monitoring/alerts.yml` has the same number."""
_SLOW_S = 1.0
_READ = text("SELECT CAST(extract(epoch FROM clock_timestamp()) AS double precision)")


class DatabaseClock:
    """The server's clock, which is read within a transaction every ten seconds, and runs on by the monotonic clock.

    So it does not matter what the host's clock says, nor that it is set while the process runs. SQLite has no clock of
    its own, and all of its processes are on one host.
    """

    def __init__(self) -> None:
        self._offset_s: float | None = None
        """What the server's clock is ahead of the monotonic one. None before it was read."""
        self._read_at = 0.0, 0.0
        self._differed = False

    def __call__(self) -> float:
        return time.time() if self._offset_s is None else time.monotonic() + self._offset_s

    def look(self, connection: Connection) -> None:
        """Read the server's clock, if that is due."""
        if connection.dialect.name == "sqlite" or not self._is_due():
            return
        before = time.monotonic()
        now = connection.execute(_READ).scalar_one()
        after = time.monotonic()
        # A slow answer says little. The former reading is better.
        if self._offset_s is None or after - before < _SLOW_S:
            self._offset_s = now - (before + after) / 2
            self._read_at = after, time.time()
            self._warn(time.time() - self())

    def _is_due(self) -> bool:
        """The host's clock tells of time in which the whole machine was suspended, and the monotonic clock may not."""
        monotonic, wall = self._read_at
        return (
            self._offset_s is None
            or time.monotonic() - monotonic > READ_EVERY_S
            or abs(time.time() - wall) > READ_EVERY_S
        )

    def _warn(self, skew_s: float) -> None:
        differs = abs(skew_s) > WARN_ABOVE_S
        if differs and not self._differed:
            logger.warning(
                "The clock of this host is %.0f s %s the database's. Leases follow the database, but the times in "
                "logs and traces are wrong. Synchronise the clocks, with chrony for example.",
                abs(skew_s),
                "ahead of" if skew_s > 0 else "behind",
            )
        self._differed = differs
