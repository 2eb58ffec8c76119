"""What the racing processes of tests run; importable, as a spawned process needs it."""

import multiprocessing
from collections.abc import Callable
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from typing import Any

from sds_clip.app.store import Store
from sds_clip.app.store.states import JobKind

_BARRIER: Barrier | None = None


def processes(count: int) -> Pool:
    """A pool of real processes that share a barrier."""
    context = multiprocessing.get_context("spawn")
    return context.Pool(count, initializer=_remember, initargs=(context.Barrier(count),))


def race(pool: Pool, count: int, act: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Let every process do the same, and return their answers."""
    return pool.starmap(act, [(*arguments, number) for number in range(count)], chunksize=1)


def migrate(url: str, _number: int) -> None:
    """Bring a database up to date at the same moment as others."""
    store = Store(url, timeout_s=30)
    _wait()
    store.migrate()
    store.close()


def claim_each(url: str, rounds: int, number: int) -> list[tuple[str, int] | None]:
    """Claim once a round, each at the same moment as the others; (job, fence) where it was won."""
    store = Store(url)
    won: list[tuple[str, int] | None] = []
    for _ in range(rounds):
        _wait()
        job = store.leases.claim(JobKind.FINETUNE, f"worker-{number}", 60)
        won.append(None if job is None else (job.id, job.fence))
        _wait()
        if job is not None:
            store.jobs.request_cancel(job.id)
    store.close()
    return won


def claim_all(url: str, number: int) -> list[str]:
    """Claim until there is nothing left."""
    store = Store(url)
    _wait()
    won = []
    while (job := store.leases.claim(JobKind.FINETUNE, f"worker-{number}", 60)) is not None:
        won.append(job.id)
    store.close()
    return won


def _remember(barrier: Barrier) -> None:
    global _BARRIER
    _BARRIER = barrier


def _wait() -> None:
    assert _BARRIER is not None
    _BARRIER.wait(60)
