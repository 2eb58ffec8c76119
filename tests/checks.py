"""Checks of data sets that no worker does."""

from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store import Store
from sds_clip.app.store.records import Lease
from sds_clip.app.store.states import JobKind


def claimed_check(store: Store, owner: str = "checker", ttl_s: float = 60.0) -> Lease:
    """The lease of the check whose turn it is; the test knows that there is one."""
    store.datasets.enlist_checks(FORMATS)
    check = store.leases.claim(JobKind.CHECK, owner, ttl_s)
    assert check is not None
    return Lease.of(check)
