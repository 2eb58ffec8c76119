import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from sds_clip.models import disk_cache
from sds_clip.models.disk_cache import DiskCache


def key(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def values(*names: object, size: int = 1000) -> dict[bytes, bytes]:
    return {key(name): str(name).encode().ljust(size) for name in names}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "below" / "cache.sqlite3"


def test_values_come_back_in_another_process(file: Path) -> None:
    kept = values(*range(1200)) | {key("empty"): b"", key("large"): bytes(3_000_000)}
    with closing(DiskCache(file)) as cache:
        cache.put_many(kept)
    with closing(DiskCache(file)) as cache:
        assert cache.get_many([*kept, key("unknown")]) == kept
        assert cache.get(key("unknown")) is None


def test_value_is_replaced(file: Path) -> None:
    with closing(DiskCache(file)) as cache:
        cache.put(key("a"), b"one")
        cache.put(key("a"), b"two")
        assert cache.get(key("a")) == b"two"


def test_what_was_used_longest_ago_goes_beyond_the_bound(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(disk_cache.time, "time", lambda: clock)
    with closing(DiskCache(file, max_bytes=10_000_000)) as cache:
        for name in range(9):
            clock += 10_000
            cache.put_many(values(name, size=1_000_000))
        clock += 10_000
        assert cache.get(key(0)) is not None
        cache.put_many(values("new", size=1_000_000))
        found = cache.get_many(key(name) for name in (*range(9), "new"))
        assert [name for name in (*range(9), "new") if key(name) in found] == [0, *range(3, 9), "new"]


def test_file_becomes_smaller_with_the_bound(file: Path) -> None:
    with closing(DiskCache(file)) as cache:
        cache.put_many(values(*range(1000), size=10_000))
    assert file.stat().st_size > 10_000_000
    with closing(DiskCache(file, max_bytes=1_000_000)) as cache:
        cache.put_many(values("new"))
        assert cache.get(key("new")) is not None
    assert file.stat().st_size <= 1_000_000


def test_bound_of_zero_keeps_nothing(file: Path) -> None:
    with closing(DiskCache(file, max_bytes=0)) as cache:
        cache.put_many(values("a"))
        assert cache.get(key("a")) is None


@pytest.mark.parametrize("damage", ["value = zeroblob(length(value))", "value = 'text'", "used_at = 'text'"])
def test_damaged_row_is_absent_and_written_anew(file: Path, damage: str) -> None:
    with closing(DiskCache(file)) as cache:
        cache.put_many(values("a", "b"))
    database = sqlite3.connect(file)
    with database:
        database.execute(f"UPDATE cache SET {damage} WHERE key = ?", (key("a"),))
    database.close()
    with closing(DiskCache(file)) as cache:
        assert cache.get_many(values("a", "b")) == values("b")
        cache.put_many(values("a"))
        assert cache.get_many(values("a", "b")) == values("a", "b")


def test_row_under_another_key_is_absent(file: Path) -> None:
    with closing(DiskCache(file)) as cache:
        cache.put_many(values("a"))
    database = sqlite3.connect(file)
    with database:
        database.execute("UPDATE cache SET key = ?", (key("b"),))
    database.close()
    with closing(DiskCache(file)) as cache:
        assert cache.get(key("b")) is None


def other_tables(file: Path) -> None:
    file.unlink()
    database = sqlite3.connect(file)
    with database:
        database.execute("CREATE TABLE cache (other TEXT)")
    database.close()


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b"this is no database" * 1000),
        lambda file: file.write_bytes(file.read_bytes()[:20_000]),
        lambda file: file.write_bytes(file.read_bytes()[:100] + bytes(len(file.read_bytes()) - 100)),
        lambda file: file.write_bytes(b""),
        other_tables,
    ],
    ids=["not a database", "cut off", "zeros", "empty", "other tables"],
)
def test_damaged_file_is_made_anew(file: Path, damage: Callable[[Path], None]) -> None:
    with closing(DiskCache(file)) as cache:
        cache.put_many(values(*range(100)))
    damage(file)
    with closing(DiskCache(file)) as cache:
        assert cache.get_many(values(*range(100))) == {}
        cache.put_many(values("a"))
        assert cache.get_many(values("a")) == values("a")


def test_file_that_another_process_made_anew_is_opened_again(file: Path) -> None:
    with closing(DiskCache(file)) as one:
        one.put_many(values("a"))
        file.unlink()
        with closing(DiskCache(file)) as other:
            other.put_many(values("b"))
            one.put_many(values("c"))
            assert one.get_many(values("b", "c")) == values("b", "c")


def test_folder_that_cannot_be_written_keeps_nothing_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "_REST_S", 0.0)
    (tmp_path / "file").touch()
    with closing(DiskCache(tmp_path / "file" / "cache.sqlite3")) as cache:
        for _ in range(3):
            cache.put_many(values("a"))
            assert cache.get_many(values("a")) == {}
    assert len(caplog.records) == 1


FULL = """
import resource, sys
from pathlib import Path
from contextlib import closing
from sds_clip.models.disk_cache import DiskCache

with closing(DiskCache(Path(sys.argv[1]))) as cache:
    cache.put(b"small", b"1")
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    cache.put(b"large", bytes(1_000_000))
"""


def test_full_disk_keeps_what_was_there(file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, file], check=True, capture_output=True, text=True)
    assert done.stderr.count("nothing is kept") == 1
    with closing(DiskCache(file)) as cache:
        assert cache.get_many([b"small", b"large"]) == {b"small": b"1"}


def test_file_that_is_locked_for_long_is_left_alone(file: Path) -> None:
    with closing(DiskCache(file, wait_s=0.01)) as cache:
        cache.put_many(values("a"))
        database = sqlite3.connect(file, isolation_level=None)
        database.execute("BEGIN EXCLUSIVE")
        assert cache.get_many(values("a")) == {}
        database.close()


WRITER = """
import os, signal, sys
from pathlib import Path
from contextlib import closing
from sds_clip.models.disk_cache import DiskCache

with closing(DiskCache(Path(sys.argv[1]), max_bytes=2_000_000)) as cache:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        cache.put_many({b"%d-%d" % (number, k): b"%d" % number * 500 for k in range(20)})
    print("written", flush=True)
    if sys.argv[4] == "killed":
        cache._connected().executescript("BEGIN IMMEDIATE; DELETE FROM cache")
        os.kill(os.getpid(), signal.SIGKILL)
"""


def writer(file: Path, first: int, last: int, end: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", WRITER, file, str(first), str(last), end]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def test_killed_writer_leaves_what_it_had_written_before(file: Path) -> None:
    assert writer(file, 0, 3, "killed").wait() == -signal.SIGKILL
    with closing(DiskCache(file)) as cache:
        assert len(cache.get_many(b"%d-%d" % (n, k) for n in range(3) for k in range(20))) == 60


def test_processes_and_threads_write_at_once(file: Path) -> None:
    processes = [writer(file, 0, 20, "ends"), writer(file, 20, 40, "ends")]
    with closing(DiskCache(file)) as cache:
        threads = [threading.Thread(target=cache.put_many, args=(values(name),)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [process.wait() for process in processes] == [0, 0]
        assert cache.get_many(values(*range(8))) == values(*range(8))
        assert len(cache.get_many(b"%d-%d" % (n, k) for n in range(40) for k in range(20))) == 800


def test_file_that_can_only_be_read_still_serves(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    with closing(DiskCache(file)) as cache:
        cache.put_many(values("a"))
    file.chmod(0o444)
    file.parent.chmod(0o555)
    monkeypatch.setattr(disk_cache, "_TOUCH_AFTER_S", -1.0)
    try:
        with closing(DiskCache(file)) as cache:
            assert cache.get_many(values("a")) == values("a")
    finally:
        file.parent.chmod(0o755)
