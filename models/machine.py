"""What this process may use of the machine: processor cores and memory."""

import contextlib
import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path


def usable_cores() -> int:
    """The cores of the affinity mask where the system has one, else all; at least one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_bytes(root: Path = Path("/")) -> int:
    """The machine's memory, or the least limit of this process's control groups (v1 and v2), whichever is less."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *_cgroup_limits(root)])


def _cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of the group and of all groups around it. A container may see its own group as the outermost."""
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
            # No limit is "max" in v2, and in v1 a number that is larger than any machine.
            with contextlib.suppress(OSError, ValueError):
                yield int((folder / name).read_text())
            if folder == top:
                break


def release_free_memory() -> None:
    """Return to the system what glibc keeps of memory that was freed; it keeps up to 64 MiB for each thread."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
