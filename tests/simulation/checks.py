"""The checks of data sets: claimed and given a verdict like a job, by code of their own."""

import contextlib

from sds_clip.app.errors import LeaseLost, StoreUnavailable
from tests.simulation.actors import World, until_it_answers
from tests.simulation.scheduler import Process

TTL_S, TAKES_S = 30.0, 8.0


def upload(world: World) -> tuple[str, ...]:
    """Add a data set. It may be there twice if the first answer was lost, as for any client."""
    return (until_it_answers(world, lambda: world.store.datasets.add(format="pairs", source={})).id,)


def check(world: World, process: Process) -> None:
    """Check what waits, and tell the waiting jobs."""
    while True:
        waiting = [
            each for each in world.ledger.tables["datasets"].values() if each["status"] == "validating"
        ]
        with contextlib.suppress(LeaseLost, StoreUnavailable):
            if waiting:
                _check_one(world, process)
        world.scheduler.sleep(5.0)


def _check_one(world: World, process: Process) -> None:
    datasets = world.store.datasets
    claimed = datasets.claim_check(process.name, TTL_S)
    if claimed is None:
        return
    id, fence = claimed.id, claimed.fence
    world.ledger.checks[process.pid] = id, fence
    process.is_overtaken = lambda ended: world.ledger.tables["datasets"][id]["fence"] > fence
    world.scheduler.sleep(TAKES_S)
    if not datasets.renew_check(claimed, TTL_S):
        return
    world.scheduler.sleep(TAKES_S)
    if world.choices.pick((True, True, False)):
        moved = datasets.accept(claimed, content_hash="", counts={})
    else:
        moved = datasets.reject(claimed, problems=[])
    for job in moved:
        world.publish(job.id)
