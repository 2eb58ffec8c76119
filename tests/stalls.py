"""A function of the product that never returns, as one call of torch does for minutes. No signal interrupts it."""

import ctypes
import functools
import importlib
import os
from itertools import count
from pathlib import Path
from typing import Any

PLACE, REACHED = "SDS_CLIP_STALL", "SDS_CLIP_STALL_REACHED"


def environment(place: str, reached: Path) -> dict[str, str]:
    """Variables with which `install` stalls `MODULE:FUNCTION` at its first call, or `MODULE:FUNCTION:N` at a later one.

    The file `reached` is made just before.
    """
    return {PLACE: place, REACHED: str(reached)}


def install() -> None:
    module, path, *call = os.environ[PLACE].split(":")
    *owners, name = path.split(".")
    owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
    function, calls, at = getattr(owner, name), count(1), int(call[0]) if call else 1

    @functools.wraps(function)
    def stalled(*args: Any, **options: Any) -> Any:
        if next(calls) == at:
            Path(os.environ[REACHED]).touch()
            _stall()
        return function(*args, **options)

    setattr(owner, name, stalled)


def _stall() -> None:
    """Wait for a lock of the C library that this thread holds. Unlike a sleep, this is not ended by a signal."""
    lock = ctypes.create_string_buffer(64)
    library = ctypes.CDLL(None)
    for _ in range(2):
        library.pthread_mutex_lock(lock)
