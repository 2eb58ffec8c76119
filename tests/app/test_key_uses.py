"""The last use of a key is noted rarely, and no request waits for it."""

import os
import stat
import threading
from pathlib import Path

import pytest

from sds_clip.app.edge.key_uses import KeyUses, last_used
from tests.worker.waiting import until

HASH = "0123456789abcdef" * 4


def test_use_is_noted_for_the_owner_of_the_files_and_again_only_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, uses = tmp_path / "data" / "keys-used", KeyUses(tmp_path / "data" / "keys-used")
    assert last_used(folder, HASH) is None
    uses.note(HASH)
    until(lambda: last_used(folder, HASH) is not None and uses._next_s[HASH] < float("inf"))
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / HASH)] == [0o700, 0o600]

    os.utime(folder / HASH, (1, 1))
    before = set(threading.enumerate())
    for _ in range(100):
        uses.note(HASH)
    assert set(threading.enumerate()) <= before
    assert last_used(folder, HASH) == 1
    uses._next_s[HASH] = 0.0
    uses.note(HASH)
    until(lambda: (last_used(folder, HASH) or 0) > 1)


def test_use_that_cannot_be_noted_is_logged_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    KeyUses(tmp_path / "file" / "keys-used").note(HASH)
    until(lambda: "cannot be noted" in caplog.text)
    assert HASH not in caplog.text
