"""Keeps a job's lease: renewed in a thread, and given up before it ends."""

import logging
import os
import time
from collections.abc import Callable

from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.store import Store
from sds_clip.app.store.records import Lease
from sds_clip.app.store.states import JobStatus
from sds_clip.worker.periodic import Periodic
from sds_clip.worker.protocol import Exit

logger = logging.getLogger(__name__)

_RENEWALS = 6  # renewals per lease


class LeaseKeeper:
    """Renews a lease every sixth of its time, and ends the process rather than outlive it.

    `stop` is called when the job is asked to pause or cancel, and when half of the lease has passed without a
    renewal, while there is still time for a checkpoint. At five sixths the process exits at once, as it does
    when another process holds the job.
    """

    def __init__(self, store: Store, lease: Lease, ttl_s: float, stop: Callable[[str], None]) -> None:
        self._store = store
        self._lease = lease
        self._ttl_s = ttl_s
        self._stop = stop
        self._renewed_at = time.monotonic()
        self.spent_s = 0.0  # spent on renewing
        self._renewing = Periodic("lease-renew", self._renew, ttl_s / _RENEWALS)
        # A thread of its own, since renewing may wait for the database.
        self._watching = Periodic("lease-watch", self._watch, ttl_s / (4 * _RENEWALS), at_once=False)

    def start(self) -> None:
        """Start renewing. The lease must have been claimed or renewed just before."""
        self._renewing.start()
        self._watching.start()

    def close(self) -> None:
        self._renewing.stop()
        self._watching.stop()

    @property
    def left_s(self) -> float:
        """Time left of the lease, as far as this process knows."""
        return self._renewed_at + self._ttl_s - time.monotonic()

    def _renew(self) -> None:
        asked_at = time.monotonic()  # before the answer, so this never overestimates the lease
        try:
            status = self._store.leases.renew(self._lease, self._ttl_s)
        except StoreUnavailable:
            logger.warning("The lease cannot be renewed. It expires in %.0f s.", self.left_s)
            return
        self.spent_s += time.monotonic() - asked_at
        if self._renewing.stopping.is_set():
            return
        if status is None:
            logger.warning("This process no longer holds the job.")
            os._exit(Exit.LEASE_LOST)
        self._renewed_at = asked_at
        if status in (JobStatus.PAUSING, JobStatus.CANCELLING):
            self._stop(f"it is {status}")

    def _watch(self) -> None:
        if self.left_s < self._ttl_s / _RENEWALS:
            logger.error("The lease could not be renewed in time, so the process exits.")
            os._exit(Exit.STORE_AWAY)
        if self.left_s < self._ttl_s / 2:
            self._stop("its lease cannot be renewed")
