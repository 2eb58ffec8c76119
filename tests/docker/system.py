"""The system of docker-compose.yml in containers, as `docker compose up` starts it."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sds_clip import ClientError
from tests.docker.compose import REPOSITORY
from tests.docker.engine import Engine

PATIENCE_S = 300.0
LASTING = ("api", "worker-finetune", "worker-evaluate", "redis", "postgres")
T = TypeVar("T")


class System:
    """One project of Compose. `settings` are what .env holds. A former release reads them from the environment."""

    def __init__(self, engine: Engine, name: str, port: int, settings: Mapping[str, str]) -> None:
        self.engine = engine
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        file = engine.socket.with_name(f"{name}.env")
        file.write_text("".join(f"{variable}={value}\n" for variable, value in settings.items()))
        own = {"COMPOSE_PROJECT_NAME": name, "API_PORT": str(port), "ENV_FILE": str(file)}
        self._settings = {**own, **settings}
        self._folder = REPOSITORY

    def of(self, folder: Path) -> None:
        """From now on, the compose file in `folder`."""
        self._folder = folder

    def compose(self, *words: str, timeout_s: float = PATIENCE_S, **settings: str) -> str:
        command = [*self._command, *words]
        return self.engine.command(command, timeout_s=timeout_s, **{**self._settings, **settings})

    @property
    def _command(self) -> list[str]:
        return ["docker-compose", "--ansi", "never", "--project-directory", str(self._folder)]

    def stream(self, *words: str, stdin: Path | None = None, stdout: Path | None = None) -> None:
        """Run a command in a new container of the API, with files as its standard input and output."""
        with open(stdin or os.devnull, "rb") as source, open(stdout or os.devnull, "wb") as target:
            command = [*self._command, "run", "--rm", "--no-deps", "-T", "api", *words]
            done = subprocess.run(
                command,
                env={**self.engine.environment, **self._settings},
                stdin=source,
                stdout=target,
                stderr=subprocess.PIPE,
                timeout=PATIENCE_S,
            )
        assert done.returncode == 0, done.stderr.decode()[-3000:]

    def up(self, *words: str, **settings: str) -> None:
        """Start what does not run, and wait until all of it is healthy."""
        self.compose("up", "--detach", "--no-build", *words, **settings)
        self.until_healthy()

    def until_healthy(self) -> None:
        for container in (each for service in LASTING for each in self.containers(service)):
            until(lambda container=container: self.health(container) == "healthy", f"{container} is healthy")  # type: ignore[misc]

    def containers(self, service: str) -> list[str]:
        """The names of the containers of a service, also of those that have ended."""
        told = self.compose("ps", "--all", "--format", "json", service)
        return sorted(json.loads(line)["Name"] for line in told.splitlines() if line.startswith("{"))

    def health(self, container: str) -> str:
        return self.engine.inspect(
            container, "{{if .State.Health}}{{.State.Health.Status}}{{else}}{{.State.Status}}{{end}}"
        )

    def key(self) -> str:
        """The key that `init` created at its first start. A former release printed it."""
        (container,) = self.containers("init")
        told = self.engine.run("logs", container).split()
        if not told[-1].startswith("/"):
            return told[-1]
        return self.compose("run", "--rm", "--no-deps", "-T", "init", "cat", told[-1]).split()[-1]

    def crash(self, container: str) -> None:
        """Kill the first process of a container, as a crash does. The engine then starts it again."""
        started_at = self.engine.inspect(container, "{{.State.StartedAt}}")
        os.kill(int(self.engine.inspect(container, "{{.State.Pid}}")), signal.SIGKILL)
        until(
            lambda: self.engine.inspect(container, "{{.State.StartedAt}}") != started_at,
            f"{container} runs again",
        )

    @contextmanager
    def cut_off(self, service: str) -> Iterator[None]:
        """Take a container off the network."""
        (container,) = self.containers(service)
        network = f"{self.name}_default"
        self.engine.run("network", "disconnect", network, container)
        try:
            yield
        finally:
            self.engine.run("network", "connect", "--alias", service, network, container)

    def remove(self) -> None:
        self.compose("down", "--volumes", "--timeout", "20")


def until(happened: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """Wait until it is true, and return what it returned."""
    deadline = time.monotonic() + patience_s
    while not (found := happened()):
        assert time.monotonic() < deadline, f"not within {patience_s:.0f} s: {what}"
        time.sleep(0.2)
    return found


def tried(call: Callable[[], T]) -> T | None:
    """What a call of the client returns, or None if it fails for now."""
    try:
        return call()
    except ClientError:
        return None
