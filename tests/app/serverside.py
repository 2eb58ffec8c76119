"""A real server in a real process, and a client for it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

START_TIMEOUT_S = 300


class RunningServer:
    """`sds-clip serve` in a process of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.send_signal(signal.SIGTERM)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports(count: int) -> int:
    """The first of free ports in a row."""
    for first in range(20_000 + os.getpid() % 5000, 60_000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no port is free")


@contextlib.contextmanager
def running_server(
    folder: Path,
    *arguments: str,
    port: int | None = None,
    python: str = sys.executable,
    constants: Mapping[str, object] | None = None,
    code: str = "",
    **environment: str,
) -> Iterator[RunningServer]:
    """Start a server, wait until it is ready, and end it. A port is given to start one again at its address.

    `constants` of the service have other values there. Where there is `code`, that runs it.
    """
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    log = folder / "server.log"
    run = ["-c", code] if code else [*program(constants or {}), "serve"]
    command = [python, *run, "--port", str(port), *arguments]
    settings = {"SDS_CLIP_DATA_DIR": str(folder / "data"), "SDS_CLIP_THREADS": "1", **environment}
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **settings})
    try:
        _wait_until_ready(process, url, log)
        yield RunningServer(process, url, log)
    finally:
        process.kill()
        process.wait()


def program(constants: Mapping[str, object]) -> list[str]:
    """Python's arguments that run sds-clip with other values of these constants, which are named by module."""
    if not constants:
        return ["-m", "sds_clip"]
    lines = [f"import {name.rpartition('.')[0]}; {name} = {value!r}" for name, value in constants.items()]
    return ["-c", "\n".join(["import sys", *lines, "from sds_clip.cli import main", "sys.exit(main())"])]


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with httpx.Client(base_url=url) as client:  # one: each takes as long as several requests
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise AssertionError(f"the server ended at once:\n{log.read_text()}")
            with contextlib.suppress(httpx.TransportError):
                if client.get("/ready").status_code == httpx.codes.OK:
                    return
            time.sleep(0.1)
    raise AssertionError(f"the server was not ready within {START_TIMEOUT_S} s:\n{log.read_text()}")
