"""A Docker engine of the tests' own, with a folder and a socket of its own, and Docker's programs."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker-cli",
    "docker-compose": "docker-compose",
    "debootstrap": "debootstrap",
}
"""Programs, and the packages of Debian 13 that have them. Before, docker.io had `docker` too, now it recommends it."""
START_S = 60.0
_BOTH = "Docker needs both docker.io and docker-cli on Debian 13."


class NoEngine(Exception):
    """Docker cannot run here. The message says why."""


@dataclass(frozen=True)
class Engine:
    """A running engine. A command that fails raises AssertionError with what it printed."""

    socket: Path

    @property
    def environment(self) -> dict[str, str]:
        # BuildKit's own plug-in is not in Debian's package.
        return {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_BUILDKIT": "0"}

    def run(self, *words: object, check: bool = True, timeout_s: float = 300.0) -> str:
        """Run `docker` with these words, and return what it printed."""
        return self.command(["docker", *map(str, words)], check=check, timeout_s=timeout_s)

    def command(
        self, words: Sequence[str], *, check: bool = True, timeout_s: float = 300.0, **environment: str
    ) -> str:
        done = subprocess.run(
            words,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-6000:]}")
        return done.stdout

    def inspect(self, name: str, form: str) -> str:
        return self.run("inspect", "--format", form, name).strip()


def install_missing() -> None:
    """Install Docker's programs by apt. Raises NoEngine."""
    if os.geteuid() != 0:
        raise NoEngine("A Docker engine of its own needs root.")
    if not _missing():
        return
    if shutil.which("apt-get") is None:
        raise NoEngine(
            f"{_missing()} cannot be found, and there is no apt-get to install the packages. {_BOTH}"
        )
    _apt_get("update", "-qq")
    for program, package in PACKAGES.items():
        if shutil.which(program) is None:
            _apt_get("install", "-qq", "--yes", "--no-install-recommends", package)


def _missing() -> str:
    return ", ".join(program for program in PACKAGES if shutil.which(program) is None)


def _apt_get(*words: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise NoEngine(f"apt-get {' '.join(words)} failed: {done.stderr.strip()[-500:]} {_BOTH}")


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """An engine that keeps its images in `folder`, so that the next one builds faster. Raises NoEngine."""
    install_missing()
    folder.mkdir(parents=True, exist_ok=True)
    run = Path("/run/sds-clip-test-docker")
    run.mkdir(exist_ok=True)
    engine = Engine(run / "socket")
    command = [
        *("dockerd", "--data-root", str(folder / "engine"), "--exec-root", str(run / "exec")),
        *("--pidfile", str(run / "pid"), "--host", f"unix://{engine.socket}", "--bridge", "none"),
    ]
    with (folder / "engine.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(engine, process, folder / "engine.log")
            yield engine
        finally:
            process.terminate()
            process.wait()


def _wait_until_it_answers(engine: Engine, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while subprocess.run(["docker", "version"], env=engine.environment, capture_output=True).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise NoEngine(f"dockerd does not run here: {log.read_text(errors='replace')[-1000:]}")
        time.sleep(0.2)
