"""`sds-clip up` in processes of its own, for tests that speak to a whole system."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sds_clip.worker.valkey import end_leftover, socket_path

PATIENCE_S = 240.0
SETTINGS = {"SDS_CLIP_LEASE_TTL_S": "20", "SDS_CLIP_KEEP_WARM": "false", "SDS_CLIP_WORKER_NICE": "0"}


class Running:
    """A run over a folder, once it has said that it is ready."""

    def __init__(self, folder: Path, python: str = sys.executable, **settings: str) -> None:
        self.data_dir = folder / "data"
        self._log = folder / "up.log"
        command = [python, "-m", "sds_clip", "up", "--port", "0", "--data-dir", str(self.data_dir)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--device", "cpu", "--threads", "1", "--worker-threads", "1"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **SETTINGS, **settings},
            )
        assert self.process.stdout is not None
        self.greeting = next((line for line in self.process.stdout if line.strip()), "")
        found = re.search(r"http://[\d.:]+", self.greeting)
        assert found, self._log.read_text()
        self.url = found[0]

    def parts(self) -> dict[int, str]:
        """Command lines of all living processes that belong to the run, but for the supervisor's."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != self.process.pid:
                try:
                    command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                except OSError:
                    continue
                if bytes(self.data_dir) in command + environment:
                    found[int(entry.name)] = command.replace(b"\0", b" ").decode()
        return found

    def part(self, words: str) -> int | None:
        """The process whose command line holds the words."""
        return next((pid for pid, command in self.parts().items() if words in command), None)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        until(lambda: not [command for command in self.parts().values() if "valkey" not in command])
        end_leftover(socket_path(self.data_dir / "broker"))


def first_tip(greeting: str) -> str:
    """The command that a run says to try first."""
    found = re.search(r"1\. .*?: +(.*?)\n +2\.", greeting, re.DOTALL)
    assert found, greeting
    return found[1]


def until(happened: Callable[[], object]) -> None:
    """Wait until it has; fails after a time that only a hang takes."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)
