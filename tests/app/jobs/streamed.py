"""Jobs whose events are streamed."""

from typing import Any

from sds_clip.app.schemas.finetune import FinetuneSpec, Hyperparameters
from sds_clip.app.store import Store
from sds_clip.app.store.records import Job, Lease, NewJob
from sds_clip.app.store.states import JobKind

CONFIG = FinetuneSpec(
    base="demo", training_data="ds_1", objective="clip", hyperparameters=Hyperparameters(steps=5)
).as_row()


def submit(store: Store, **options: Any) -> Job:
    return store.jobs.submit(NewJob(JobKind.FINETUNE, {}, config={**CONFIG}, **options))[0]


def claim(store: Store, ttl_s: float = 60) -> Lease:
    """The lease of the oldest job; the test knows that there is one."""
    job = store.leases.claim(JobKind.FINETUNE, "slot", ttl_s)
    assert job is not None
    return Lease.of(job)
