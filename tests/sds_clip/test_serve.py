import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.app.serverside import free_port


@pytest.fixture
def server(checkpoint: Path, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """`sds-clip serve` as a process of its own, once it is ready."""
    port = free_port()
    options = [
        "--port",
        str(port),
        "--model",
        f"local-dir:{checkpoint}",
        "--precision",
        "float32",
        "--threads",
        "1",
    ]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "sds_clip", "serve", *options], stderr=log, stdout=log
        )
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(process, address)
        yield process, address
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: "subprocess.Popen[bytes]", address: str) -> None:
    give_up_at = time.monotonic() + 120
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            if httpx.get(f"{address}/ready", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError("the server did not become ready")


def test_the_options_reach_the_service_and_sigterm_ends_it(
    server: tuple["subprocess.Popen[bytes]", str], checkpoint: Path
) -> None:
    process, address = server
    (model,) = httpx.get(f"{address}/models", timeout=30).json()["models"]
    assert (model["reference"], model["precision"]) == (f"local-dir:{checkpoint}", "float32")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
