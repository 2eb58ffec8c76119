"""What `sds-clip up` writes: JSON lines and nothing else where no terminal reads, lines and a banner on one."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.app.serverside import free_port

LIMIT_S = 120


def _start(folder: Path, port: int, **pipes: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sds_clip", "up", "--port", str(port), "--data-dir", str(folder)]
    return subprocess.Popen(command, **pipes)  # type: ignore[call-overload,no-any-return]


def _wait_for_workers(url: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        try:
            if len(httpx.get(f"{url}/workers").json()["data"]) == 2:
                return
        except (httpx.HTTPError, ValueError, KeyError):
            pass
        time.sleep(0.2)
    raise AssertionError("the workers did not come up")


@pytest.mark.long
def test_file_gets_json_lines_and_nothing_else(tmp_path: Path) -> None:
    port = free_port()
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        process = _start(tmp_path / "data", port, stdout=out.fileno(), stderr=err.fileno())
        try:
            _wait_for_workers(f"http://127.0.0.1:{port}")
            assert httpx.get(f"http://127.0.0.1:{port}/jobs/none").status_code == 404
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT_S) == 0

    lines = [json.loads(line) for line in (tmp_path / "err").read_text().splitlines()]
    assert {line["logger"].split(".")[0] for line in lines} <= {"app", "sds_clip", "uvicorn"}
    (refused,) = (line for line in lines if line.get("status") == 404)
    assert refused["code"] == "job_not_found"
    assert "Next, in another terminal:" in (tmp_path / "out").read_text()
    assert "shutdown" not in (tmp_path / "out").read_text()


@pytest.mark.long
@pytest.mark.slow
def test_terminal_gets_lines_for_people_and_a_banner_at_the_end(tmp_path: Path) -> None:
    port = free_port()
    reading, writing = pty.openpty()
    process = _start(tmp_path / "data", port, stdout=writing, stderr=writing)
    os.close(writing)
    seen = b""
    deadline = time.monotonic() + LIMIT_S
    try:
        while b"sds-clip jobs list" not in seen and time.monotonic() < deadline:
            if select.select([reading], [], [], 1)[0]:
                seen += os.read(reading, 65536)
        _wait_for_workers(f"http://127.0.0.1:{port}")
        while select.select([reading], [], [], 1)[0]:
            seen += os.read(reading, 65536)
    finally:
        process.send_signal(signal.SIGTERM)
        # A terminal that nobody reads fills up, and then the processes wait for it.
        with os.fdopen(reading, "rb", buffering=0) as terminal:
            while process.poll() is None:
                if select.select([terminal], [], [], 0.2)[0]:
                    try:
                        terminal.read(65536)
                    except OSError:  # every writer has closed it
                        break
        assert process.wait(LIMIT_S) == 0

    screen = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode()).replace("\r", "").rstrip().splitlines()
    screen = [line for line in screen if line and "GET /workers" not in line]  # this test asks
    assert "sds-clip jobs list" in screen[-1]
    logged = [line for line in screen if re.match(r"\d\d:\d\d:\d\d (info|warning|error) ", line)]
    assert len(logged) >= 3
    assert not any(line.startswith("{") for line in screen)
