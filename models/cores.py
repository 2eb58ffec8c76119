"""How many processor cores this process may use."""

import os


def usable_cores() -> int:
    """The cores of the affinity mask where the system has one, else all; at least one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
