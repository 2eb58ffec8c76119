"""One server under test: started in a process group of its own, asked, and always ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from sds_clip.models.machine import usable_cores

THREADS = usable_cores()
START_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Server:
    """`command` and a port start it; `ready` answers 200 once it works."""

    name: str
    command: tuple[str, ...]
    ready: str = "/ready"


def sds_clip(name: str, command: str, *options: str) -> Server:
    """This project, started as a user would."""
    return Server(name, (sys.executable, "-m", "sds_clip", command, *options, "--port"))


@dataclass(frozen=True)
class Running:
    """A started server."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> Any:
        return httpx.get(self.url + path, timeout=30, verify=False).raise_for_status().json()

    def post(self, path: str, body: str | bytes, timeout_s: float = 120.0) -> httpx.Response:
        """Send one untimed request."""
        headers = {"Content-Type": "application/json"}
        # Loading certificates would take longer than the request.
        return httpx.post(self.url + path, content=body, headers=headers, timeout=timeout_s, verify=False)

    def resident_bytes(self) -> int:
        return sum(resident_bytes_of(pid) for pid in (self.pid, *descendants(self.pid)))

    def cpu_seconds(self) -> float:
        """User and system time of the server and its child processes that live."""
        return sum(_cpu_seconds(f"/proc/{pid}/stat") for pid in (self.pid, *descendants(self.pid)))

    def loop_seconds(self) -> float:
        """User and system time of the server's main thread, which runs the event loop of one of ours."""
        return _cpu_seconds(f"/proc/{self.pid}/task/{self.pid}/stat")


def _cpu_seconds(stat: str) -> float:
    fields = Path(stat).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def environment_variables(cache: Path) -> dict[str, str]:
    """The same thread counts for all servers, no downloads, no telemetry."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(THREADS),
        "MKL_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HOME": str(cache / "huggingface"),
        "TOKENIZERS_PARALLELISM": "false",
        "DO_NOT_TRACK": "1",
        "SDS_CLIP_THREADS": str(THREADS),
        "SDS_CLIP_DATA_DIR": str(cache / "data"),
        "SDS_CLIP_LOG_LEVEL": "warning",
    }


@contextmanager
def running(server: Server, cache: Path, **environment: str) -> Iterator[Running]:
    """Start a server, wait until it answers, and end its whole process group."""
    port = free_port()
    log = cache / "logs" / (server.name.replace(" ", "_").replace(",", "") + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with ended_by_sigterm(), log.open("w") as output:
        process = subprocess.Popen(
            (*server.command, str(port)),
            stdout=output,
            stderr=output,
            env=environment_variables(cache) | environment,
            process_group=0,
        )
        started = Running(port, process.pid, log)
        try:
            wait_until(
                lambda: _is_ready(server, process, started), f"{server.name} ready", START_TIMEOUT_S, 0.25
            )
            yield started
        finally:
            _end(process)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM is an exception, so that what was started is ended."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(
    happened: Callable[[], object], what: str, timeout_s: float = 600.0, every_s: float = 0.02
) -> None:
    """Wait for an event. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not happened():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not {what} within {timeout_s:.0f} s")
        time.sleep(every_s)


def _is_ready(server: Server, process: subprocess.Popen[bytes], started: Running) -> bool:
    if process.poll() is not None:
        end = started.log.read_text()[-3000:]
        raise RuntimeError(f"{server.name} ended with {process.returncode}:\n{end}")
    with suppress(httpx.TransportError):
        return httpx.get(started.url + server.ready, timeout=5, verify=False).is_success
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)  # `sds-clip up` stops workers, the service and Valkey one after another
    # Workers of the group may outlive their parent.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def resident_bytes_of(pid: int) -> int:
    """The resident memory of one process, or 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """All child processes, recursively."""
    children: list[int] = []
    # A child belongs to the thread that started it.
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            children += map(int, thread.read_text().split())
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]
