"""Rounds in which contestants take turns, because the speed of a shared machine drifts."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from bench.report import note
from sds_clip.models.training.log import synchronize

K = TypeVar("K")
T = TypeVar("T")


def in_turns(
    what: str, count: int, contestants: Mapping[K, Callable[[], T]], *, warm_up: bool = False
) -> dict[K, list[T]]:
    """Each contestant's results by round; every second round goes in reverse.

    With `warm_up` there is a round 0, whose results do not count. Nothing is noted if `what` is empty.
    """
    found: dict[K, list[T]] = {key: [] for key in contestants}
    for number in range(0 if warm_up else 1, count + 1):
        for key in list(contestants)[:: 1 if number % 2 else -1]:
            if what:
                note(f"{what}: round {number} of {count}, {key}")
            result = contestants[key]()
            if number:
                found[key].append(result)
    return found


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has finished the work."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started
