import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sds_clip.app.edge.key_uses import FOLDER
from sds_clip.app.keys import read_keys
from sds_clip.cli import main
from tests.sds_clip.transcript import test_transcript  # noqa: F401


def test_a_key_is_printed_once_and_kept_as_its_hash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    assert (
        main(["keys", "create", "phone", "--scope", "infer", "--scope", "train", "--keys-file", str(file)])
        == 0
    )
    captured = capsys.readouterr()
    key = captured.out.strip()
    assert key not in captured.err
    assert f"--keys-file {file}" in captured.err
    assert key not in file.read_text()
    assert json.loads(file.read_text())["keys"] == [
        {"name": "phone", "sha256": hashlib.sha256(key.encode()).hexdigest(), "scopes": ["infer", "train"]}
    ]


def test_key_with_an_expiry_and_its_last_use_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ["--keys-file", str(tmp_path / "keys.json")]
    assert main(["keys", "create", "guest", "--expires", "2999-01-31", *file]) == 0
    assert main(["keys", "create", "phone", "--expires", "90d", *file]) == 0
    guest, phone = read_keys(tmp_path / "keys.json")
    assert guest.expires_at == datetime(2999, 1, 31, tzinfo=UTC)
    assert phone.expires_at is not None
    assert abs(phone.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(hours=1)
    used = tmp_path / "data" / FOLDER / guest.sha256
    used.parent.mkdir(parents=True)
    used.touch()
    os.utime(used, (1_800_000_000, 1_800_000_000))
    capsys.readouterr()

    assert main(["keys", "list", *file, "--data-dir", str(tmp_path / "data")]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.endswith(" last used")
    assert first.split() == ["guest", "infer", "2999-01-31", "00:00", "2027-01-15", "08:00"]
    assert second.split()[-1] == "never"


def test_keys_that_are_created_at_once_are_all_kept(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    script = (
        "import os, sys, pathlib, sds_clip.app.keys as k\n"
        "for n in range(8):\n"
        "    if os.fork() == 0:\n"
        "        os._exit(k.create_key(pathlib.Path(sys.argv[1]), f'key-{n}', ['infer']) == '')\n"
        "sys.exit(any(os.wait()[1] for n in range(8)))"
    )
    subprocess.run([sys.executable, "-c", script, str(file)], check=True)
    assert {key.name for key in read_keys(file)} == {f"key-{n}" for n in range(8)}
