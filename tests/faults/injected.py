"""What every fault has to tell, and what most begin with."""

from dataclasses import dataclass
from random import Random

from tests.faults.system import STEPS, System


@dataclass(frozen=True)
class Injected:
    """A fault that was put in: the job that it hit, and when it happened, or was over where it lasted."""

    job: str
    at: float


def submitted(system: System, random: Random, **hyperparameters: object) -> str:
    """A job with chance of its own, and so a version of its own."""
    return system.submit(random.getrandbits(32), **hyperparameters)


def begun(system: System, random: Random) -> str:
    """A job that has come to a step drawn at random, with most of them to come."""
    job = submitted(system, random)
    system.until_step(job, random.randint(1, STEPS // 4))
    return job
