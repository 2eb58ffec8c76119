"""The processor cores and the memory that this process may use."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path


def usable_cores() -> int:
    """Return the number of cores in the affinity mask, or of all cores if the system has no mask."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_bytes(root: Path = Path("/")) -> int:
    """Return the memory of the machine, or of this process's control groups (v1 and v2) if that is less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """Yield the limits of the group and its parents. A container may see its own group as the outermost."""
    try:
        groups = (root / "proc/self/cgroup").read_text()
    except OSError:
        return
    for controllers, path in re.findall(r"^\d+:(.*?):(.*)$", groups, re.MULTILINE):
        if controllers == "":
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        group = top / path.lstrip("/")
        for folder in (group, *group.parents):
            # Without a limit, v2 has "max", and v1 a number larger than any machine.
            with contextlib.suppress(OSError, ValueError):
                yield int((folder / name).read_text())
            if folder == top:
                break


def release_free_memory() -> None:
    """Give freed memory that glibc holds back to the system. It holds up to 64 MiB per thread."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
