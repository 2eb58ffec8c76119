"""Which process a pid means: numbers are used again, so a start time goes with each.

Needs Linux's /proc and pidfds; elsewhere no process is ever recognised, and so none is ended.
"""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

CHECK = "check"
"""The role of a process that checks data sets; that of a slot is its queue."""
_START_TIME = 19  # of the fields of /proc/PID/stat after the name: field 22


@dataclass(frozen=True)
class ProcessId:
    """One process, and no other that comes after it."""

    pid: int
    started: str
    """Clock ticks since boot."""
    space: str
    """The boot and the process namespace (a container's, say) in which the pid means something."""


def identify(pid: int) -> ProcessId | None:
    """The process that has a pid now; None where there is none, or this system cannot tell."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        if fields[0] in ("Z", "X"):  # ended, and not yet waited for
            return None
        return ProcessId(pid, fields[_START_TIME], _space())
    except (OSError, IndexError):
        return None


def owner_name(pid: int, role: str) -> str:
    """The name under which a process of this machine holds leases."""
    return f"{socket.gethostname()}/{pid}/{role}"


def node_name(pid: int, role: str) -> str:
    """The name of a worker of this machine in Celery's tools."""
    return f"{role}-{pid}@{socket.gethostname()}"


def is_alive(process: ProcessId) -> bool:
    """Whether that very process runs, and in this process's namespace."""
    return identify(process.pid) == process


def kill(process: ProcessId) -> bool:
    """End a process that cannot be asked; whether it was that one.

    A pidfd holds on to the process before it is looked at, so no other can get its number in between.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except (OSError, AttributeError):
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _space() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
