"""The embedded broker: a real Valkey, started, killed, left behind, and kept apart."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from sds_clip.app.errors import ConfigurationError
from sds_clip.app.jobs.wakeups import WakeUps
from sds_clip.app.store.states import JobKind
from sds_clip.worker.valkey import MAX_SOCKET_BYTES, Valkey, socket_path
from tests.worker.waiting import until


@pytest.fixture
def folder() -> Iterator[Path]:
    """Somewhere with a short path, as a socket's must be."""
    with tempfile.TemporaryDirectory(prefix="vk-") as made:
        yield Path(made) / "valkey"


def waiting(valkey: Valkey) -> int:
    """How many wake-ups are in the queue."""
    client = redis.Redis(unix_socket_path=str(valkey.socket))
    try:
        return int(client.llen("finetune"))  # type: ignore[arg-type]
    finally:
        client.close()


def wake(valkey: Valkey) -> bool:
    wake_ups = WakeUps(valkey.url)
    try:
        return wake_ups.publish(JobKind.FINETUNE, "job_1")
    finally:
        wake_ups.close()


def test_wake_ups_outlive_a_stop_and_a_kill_of_the_server(folder: Path) -> None:
    with Valkey(folder) as valkey:
        assert wake(valkey)
        assert valkey.is_running()
    assert not valkey.socket.exists()
    with Valkey(folder) as valkey:
        assert waiting(valkey) == 1
        assert wake(valkey)
        until(lambda: _on_disk(folder) == 2)
        assert valkey.pid is not None
        os.kill(valkey.pid, signal.SIGKILL)
        until(lambda: not valkey.is_running())
        assert not wake(valkey)
        valkey.start()
        assert waiting(valkey) == 2
        assert wake(valkey)


def _on_disk(folder: Path) -> int:
    """Wake-ups in the append-only file, which is written behind the answer by a moment."""
    files = list((folder / "appendonlydir").glob("*.incr.aof"))
    return sum(file.read_bytes().count(b"LPUSH") for file in files) + sum(
        1 for file in (folder / "appendonlydir").glob("*.base.rdb") if b"finetune" in file.read_bytes()
    )


def test_server_answers_only_at_its_socket_and_keeps_everything(folder: Path) -> None:
    with Valkey(folder) as valkey:
        client = redis.Redis(unix_socket_path=str(valkey.socket))
        said = {name: client.config_get(name)[name] for name in ("port", "appendonly", "maxmemory-policy")}  # type: ignore[index]
        client.close()
        assert said == {"port": "0", "appendonly": "yes", "maxmemory-policy": "noeviction"}
        assert valkey.socket.stat().st_mode & 0o077 == 0


def test_second_one_over_the_same_folder_is_refused(folder: Path) -> None:
    with Valkey(folder) as valkey:
        with pytest.raises(ConfigurationError, match="in use by another"):
            Valkey(folder).start()
        assert valkey.is_running()
        assert wake(valkey)


def test_server_that_a_crash_has_left_is_ended_and_what_it_held_is_kept(folder: Path) -> None:
    crashed = Valkey(folder)
    crashed.start()
    assert wake(crashed)
    left = crashed._process
    assert left is not None
    crashed._lock.release()  # as the kernel does it
    with Valkey(folder) as valkey:
        assert left.wait(30) == 0
        assert waiting(valkey) == 1


def test_stale_socket_is_no_hindrance(folder: Path) -> None:
    folder.mkdir()
    (folder / "valkey.sock").touch()
    with Valkey(folder) as valkey:
        assert wake(valkey)


def test_server_that_cannot_start_says_where_its_log_is(folder: Path) -> None:
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense\n")
    with pytest.raises(ConfigurationError, match=r"ended with code 1 .*valkey\.log"):
        Valkey(folder).start()
    (folder / "appendonlydir" / "appendonly.aof.manifest").unlink()
    with Valkey(folder):
        pass


def test_long_path_puts_the_socket_into_a_private_folder_and_odd_ones_are_quoted(tmp_path: Path) -> None:
    folder = tmp_path / ("long name " * 10).strip() / 'with "quotes" and 100%'
    with Valkey(folder) as valkey:
        assert len(os.fsencode(valkey.socket)) <= MAX_SOCKET_BYTES
        assert valkey.socket.parent.stat().st_mode & 0o077 == 0
        assert wake(valkey)
    valkey.socket.parent.rmdir()


def test_private_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * MAX_SOCKET_BYTES)
    private = socket_path(folder).parent
    private.chmod(0o755)
    try:
        with pytest.raises(ConfigurationError, match=private.name):
            socket_path(folder)
    finally:
        shutil.rmtree(private)
