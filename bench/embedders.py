"""What the serving benchmark compares: this service and its peers, each in an environment of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import servers
from bench.load import IMAGE, Call

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


@dataclass(frozen=True)
class Embedder:
    """A server, how it is asked for an image's embedding, and where that is in its answer."""

    server: servers.Server
    embed: Call
    vector: Callable[[Any], Sequence[float]]

    @property
    def name(self) -> str:
        return self.server.name

    def embedding(self, answer: str) -> np.ndarray:
        """The embedding in an answer, L2-normalised."""
        vector = np.asarray(self.vector(json.loads(answer)), dtype=np.float32)
        return np.asarray(vector / np.linalg.norm(vector))


def ours(model: str, device: str, precision: str, *, checkout: Path | None = None) -> Embedder:
    options = ("--model", model, "--device", device, "--precision", precision)
    server = servers.sds_clip(f"sds-clip, {precision}", "serve", *options)
    if checkout:
        elsewhere = ("env", f"--chdir={checkout}", f"PYTHONPATH={checkout}", *server.command)
        server = servers.Server(f"sds-clip before, {precision}", elsewhere)
    return Embedder(
        server,
        Call("embed", "/embed", json.dumps({"images": [IMAGE]})),
        lambda answer: answer["results"][0]["embedding"],
    )


def infinity(folder: Path, environment: Path) -> Embedder:
    """infinity-emb with torch, started as its documentation does for a CPU."""
    command = (
        str(environment / "bin" / "infinity_emb"), "v2", "--model-id", str(folder), "--device", "cpu", "--engine",
        "torch", "--no-bettertransformer", "--host", "127.0.0.1", "--log-level", "warning", "--port",
    )  # fmt: skip
    return Embedder(
        servers.Server("infinity-emb 0.0.77, float32", command, ready="/health"),
        Call(
            "embed", "/embeddings", json.dumps({"model": folder.name, "modality": "image", "input": [IMAGE]})
        ),
        lambda answer: answer["data"][0]["embedding"],
    )


def litserve(folder: Path, environment: Path, precision: str) -> Embedder:
    """LitServe around open_clip: `bench/litserve_app.py`; `precision` is open_clip's name."""
    shown = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    app = Path(__file__).with_name("litserve_app.py")
    command = (str(environment / "bin" / "python"), str(app), str(folder), precision)
    return Embedder(
        servers.Server(f"LitServe 0.2.17 + open_clip, {shown}", command, ready="/health"),
        Call("embed", "/predict", json.dumps({"image": IMAGE})),
        lambda answer: answer["embedding"],
    )


def install(environment: Path, requirements: tuple[str, ...]) -> None:
    """Create a peer's virtual environment, once per list of requirements."""
    stamp = environment / "installed.txt"
    if not stamp.exists() or stamp.read_text() != "\n".join(requirements):
        print(f"installing {requirements[0]} into {environment}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run([environment / "bin" / "pip", "install", "--quiet", *requirements], check=True)
        stamp.write_text("\n".join(requirements))


def installed_versions(environment: Path, names: Sequence[str]) -> str:
    code = (
        "import importlib.metadata as m, sys; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"
    )
    command = [str(environment / "bin" / "python"), "-c", code, *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
