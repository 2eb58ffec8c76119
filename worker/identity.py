"""Process identity: pids are reused, so a start time goes with each.

Needs Linux's /proc and pidfds. Elsewhere no process is ever recognised, and so none is killed.
"""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

_START_TIME = 19  # index after the name in /proc/PID/stat: field 22


@dataclass(frozen=True)
class ProcessId:
    """One particular process, not a later one with the same pid."""

    pid: int
    started: str
    """Clock ticks since boot."""
    space: str
    """The boot and the pid namespace (for example a container's) in which the pid is valid."""


def identify(pid: int) -> ProcessId | None:
    """Identify the process that has a pid now; None if there is none or the system cannot tell."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        if fields[0] in ("Z", "X"):  # ended, but not yet waited for
            return None
        return ProcessId(pid, fields[_START_TIME], _space())
    except (OSError, IndexError):
        return None


def owner_name(pid: int, role: str) -> str:
    """The name under which a process of this machine holds leases."""
    return f"{socket.gethostname()}/{pid}/{role}"


def node_name(pid: int, role: str) -> str:
    """A worker's name in Celery's tools."""
    return f"{role}-{pid}@{socket.gethostname()}"


def is_alive(process: ProcessId) -> bool:
    return identify(process.pid) == process


def kill(process: ProcessId) -> bool:
    """Send SIGKILL to a process; returns whether it was still that process.

    The pidfd is opened before the identity is checked, so the pid cannot be reused in between.
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
