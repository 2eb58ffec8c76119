"""The processes of a system under faults."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from bench.servers import free_port


class Part:
    """A process of the system. Its output goes to a log."""

    def __init__(self, name: str, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        self.is_wanted = True
        self.name = name
        self._command = command
        self._environment = os.environ | environment
        self.log = folder / f"{name}.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_died(self) -> bool:
        """Whether it has ended without being asked to."""
        return self.is_wanted and self.process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> None:
        """Kill it; it is not restarted."""
        self.is_wanted = False
        self.process.kill()
        self.process.wait()


class Service(Part):
    """One of the serving processes, with its own state folder."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.state_dir = folder / f"{name}-state"
        serve = [sys.executable, "-m", "sds_clip", "serve", "--port", str(port)]
        super().__init__(name, folder, serve, environment | {"SDS_CLIP_STATE_DIR": str(self.state_dir)})

    def get(self, path: str) -> httpx.Response | None:
        """GET a path; None if the service does not answer."""
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}{path}", timeout=30)
        return None

    def version(self) -> str | None:
        """The version that answers for the default model; None for no answer or an error."""
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(f"{self.url}/embed", json={"texts": ["a red circle"]}, timeout=30)
            return str(answer.json()["model"]["version"]) if answer.is_success else None
        return None
