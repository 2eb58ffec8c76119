"""The servers under test: how each is installed, started, called and stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.load import IMAGE, Call
from models.machine import usable_cores

THREADS = usable_cores()
INFINITY_REQUIREMENTS = (
    "infinity-emb[server,torch]==0.0.77",
    "pillow",
    "torchvision",
    "aiohttp",
    "transformers>=4.47,<4.49",
    "click<8.2",
    "numpy<2",
)
LITSERVE_REQUIREMENTS = ("litserve==0.2.17", "open_clip_torch", "torch", "torchvision")
NO_CALL = Call("none", "/", "")


@dataclass(frozen=True)
class Server:
    """A server that embeds images: `command(port)` starts it, `ready` answers 200 once it works."""

    name: str
    command: Callable[[int], list[str]]
    embed: Call = NO_CALL
    vector: Callable[[Any], np.ndarray] = lambda answer: np.zeros(0)
    ready: str = "/health"
    start_timeout_s: float = 300.0


@dataclass(frozen=True)
class Running:
    """A started server."""

    port: int
    pid: int

    def resident_bytes(self) -> int:
        return sum(_resident_bytes(pid) for pid in (self.pid, *descendants(self.pid)))


def ours(model: str, precision: str) -> Server:
    """This project's service, started as a user would."""

    def command(port: int) -> list[str]:
        options = ["--host", "127.0.0.1", "--port", str(port), "--model", model, "--precision", precision]
        return [sys.executable, "-m", "sds_clip", "serve", *options]

    body = json.dumps({"images": [IMAGE]})
    return Server(
        f"sds-clip, {precision}",
        command,
        Call("embed", "/embed", body),
        lambda answer: np.asarray(answer["results"][0]["embedding"], dtype=np.float32),
        ready="/ready",
    )


def infinity(folder: Path, environment: Path) -> Server:
    """infinity-emb with torch, started as its documentation does for a CPU."""

    def command(port: int) -> list[str]:
        options = [
            "--model-id",
            str(folder),
            "--device",
            "cpu",
            "--engine",
            "torch",
            "--no-bettertransformer",
        ]
        return [
            str(environment / "bin" / "infinity_emb"), "v2", *options,
            "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning",
        ]  # fmt: skip

    body = json.dumps({"model": folder.name, "modality": "image", "input": [IMAGE]})
    return Server(
        "infinity-emb 0.0.77, float32",
        command,
        Call("embed", "/embeddings", body),
        lambda answer: np.asarray(answer["data"][0]["embedding"], dtype=np.float32),
    )


def litserve(folder: Path, environment: Path, precision: str) -> Server:
    """LitServe around open_clip: `bench/litserve_app.py`; `precision` is open_clip's name."""
    app = Path(__file__).with_name("litserve_app.py")
    shown = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    return Server(
        f"LitServe 0.2.17 + open_clip, {shown}",
        lambda port: [str(environment / "bin" / "python"), str(app), str(folder), precision, str(port)],
        Call("embed", "/predict", json.dumps({"image": IMAGE})),
        lambda answer: np.asarray(answer["embedding"], dtype=np.float32),
    )


def install(environment: Path, requirements: tuple[str, ...]) -> Path:
    """Create a peer's virtual environment, once per list of requirements."""
    stamp = environment / "installed.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(requirements):
        print(f"installing {requirements[0]} into {environment}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", *requirements], check=True)
        stamp.write_text("\n".join(requirements))
    return environment


def environment_variables(cache: Path) -> dict[str, str]:
    """The same thread counts for all servers, no downloads, no telemetry."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(THREADS),
        "MKL_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HOME": str(cache / "huggingface"),
        "TOKENIZERS_PARALLELISM": "false",
        "DO_NOT_TRACK": "1",
        "SDS_CLIP_THREADS": str(THREADS),
        "SDS_CLIP_DECODE_THREADS": str(THREADS),
        "SDS_CLIP_DATA_DIR": str(cache / "data"),
        "SDS_CLIP_LOG_LEVEL": "warning",
    }


@contextmanager
def running(server: Server, cache: Path, **environment: str) -> Iterator[Running]:
    """Start a server, wait until it answers, and always end its whole process group."""
    port = free_port()
    log = cache / "logs" / (server.name.replace(" ", "_").replace(",", "") + ".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            server.command(port),
            stdout=output,
            stderr=output,
            env=environment_variables(cache) | environment,
            process_group=0,
        )
        try:
            _wait_until_ready(server, process, port, log)
            yield Running(port, process.pid)
        finally:
            _end(process)


def free_port() -> int:
    """A loopback port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def post(port: int, path: str, body: str | bytes, timeout_s: float = 120.0) -> tuple[int, Any]:
    """Send one untimed request; returns status and parsed answer."""
    response = httpx.post(
        f"http://127.0.0.1:{port}{path}",
        content=body,
        headers={"Content-Type": "application/json"},
        timeout=timeout_s,
        verify=False,  # loading certificates would take longer than the request
    )
    return response.status_code, response.json() if response.content else None


def get(port: int, path: str) -> Any:
    return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=30, verify=False).raise_for_status().json()


def _wait_until_ready(server: Server, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + server.start_timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{server.name} ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        with suppress(httpx.TransportError):
            ready = httpx.get(f"http://127.0.0.1:{port}{server.ready}", timeout=5, verify=False)
            if ready.status_code == 200:
                return
        time.sleep(0.25)
    raise RuntimeError(
        f"{server.name} was not ready in {server.start_timeout_s:.0f} s:\n{log.read_text()[-3000:]}"
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)  # `sds-clip up` stops workers, the service and Valkey one after another
    # Workers of the group may outlive their parent.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def descendants(pid: int) -> list[int]:
    """All child processes, recursively."""
    children: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob(
        "*/children"
    ):  # a child belongs to the thread that started it
        with suppress(OSError):
            children += map(int, thread.read_text().split())
    return [*children, *(grandchild for child in children for grandchild in descendants(child))]
