"""Every kind of fault, and how one is injected and checked."""

import time
from dataclasses import dataclass
from random import Random

from bench.faults import injections, storage, weights
from bench.faults.checks import Findings, check
from bench.faults.injections import Injected, Injection, at_point, broker_is_away, database_is_away, submitted
from bench.faults.system import SAVE_EVERY, STEPS, System


@dataclass(frozen=True)
class Kind:
    """A kind of fault. `served`: the service's callers must not notice it."""

    name: str
    inject: Injection
    served: bool = True
    needs_postgresql: bool = False


def nothing(system: System, random: Random) -> Injected:
    """The baseline: a job without any fault."""
    return Injected(submitted(system, random), time.time())


KINDS = (
    Kind("nothing, for comparison", nothing),
    Kind("service killed after commit, before publish", injections.service_dies_after_commit, served=False),
    Kind("worker killed after claim", at_point("after-claim")),
    Kind("trainer killed in a step", at_point("mid-step", STEPS)),
    Kind("trainer killed in a checkpoint", at_point("mid-checkpoint", STEPS // SAVE_EVERY)),
    Kind("trainer killed after rename, before the row", at_point("after-rename")),
    Kind("service killed in a swap", at_point("mid-swap"), served=False),
    Kind("trainer killed at any time", injections.trainer_is_killed),
    Kind("worker killed at any time", injections.worker_is_killed),
    Kind("service killed at any time", injections.service_is_killed, served=False),
    Kind("Valkey killed", injections.valkey_is_killed),
    Kind("broker wiped", injections.broker_is_wiped),
    Kind("broker cut for 10 s", broker_is_away("cut")),
    Kind("broker stalled for 10 s", broker_is_away("stall")),
    Kind("database cut for 10 s", database_is_away("cut"), needs_postgresql=True),
    Kind("database stalled for 10 s", database_is_away("stall")),
    Kind("worker and trainer stopped past the lease, then going on", injections.zombie_goes_on),
    Kind("a worker's data folder not mounted", injections.worker_sees_another_folder),
    Kind("a service's data folder not mounted", injections.service_sees_another_folder),
    Kind("a worker's device fails", injections.device_fails),
    Kind("disk full at a checkpoint", storage.disk_is_full_at_a_checkpoint),
    Kind("disk full at an upload", storage.disk_is_full_at_an_upload),
    Kind("newest checkpoint corrupted", storage.newest_checkpoint_is_corrupted),
    Kind("two workers race for a job", injections.two_workers_race),
    Kind("a wake-up delivered five times", injections.wake_up_comes_five_times),
    Kind("database away, a service killed", weights.service_starts_without_its_database, served=False),
    Kind(
        "database away, a service killed, its state lost",
        weights.service_starts_with_an_empty_state,
        served=False,
    ),
    Kind("promoted version damaged, a service killed", weights.promoted_version_is_damaged, served=False),
)


@dataclass(frozen=True)
class Outcome:
    """One injected fault and its result."""

    kind: Kind
    seed: int
    recovery_s: float
    """Time until its job has succeeded and its version is served."""
    findings: Findings


def try_out(kind: Kind, system: System, seed: int) -> Outcome:
    """Inject a fault, wait until the system has recovered, and check everything.

    Raises: AssertionError if the fault did not happen as intended; TimeoutError if the system does not
    recover.
    """
    began = time.time()
    injected = kind.inject(system, Random(seed))
    system.until_recovered(injected.job)
    recovery_s = time.time() - injected.at
    findings = check(system)
    if kind.served:
        refused = [refusal for caller in system.callers for refusal in caller.refused_since(began)]
        findings.broken += [f"a request was not answered: {each.reason}" for each in refused]
    return Outcome(kind, seed, recovery_s, findings)
