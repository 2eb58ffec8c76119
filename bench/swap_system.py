"""What the benchmarks of swaps start alike: a base, a load, and a training run beside the servers."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import servers, weights
from bench.load import IMAGE, TEXT, Call, LoadSpec, run_load, text_of
from bench.report import note
from bench.sets import make_images
from sds_clip.demo.folders import write_pairs
from sds_clip.demo.sets import pairs
from sds_clip.demo.training_set import DISTILLATION_SEED
from sds_clip.demo.world import Split

LABELS = ["dog", "car", "house", "tree", "boat", "chair", "bird", "clock", "bridge", "shoe"]
CLASSES = {
    "labels": [f"a {label}" for label in LABELS],
    "templates": ["a photo of {}.", "a drawing of {}."],
    "top_k": len(LABELS),
}
CALLS = [
    Call("match", "/match", json.dumps({"images": [IMAGE], "texts": [TEXT, f"no {TEXT}"]})),
    Call("match", "/match", json.dumps({"images": [IMAGE], "texts": [f"{TEXT} again", "an empty room"]})),
    Call("classify", "/classify", json.dumps({"images": [IMAGE], **CLASSES})),
]


def find_inputs(model: str, cache: Path) -> tuple[str, list[str]]:
    """The model, or ViT-B/32 with random weights if none is named; and the images of the load."""
    model = model or f"local-dir:{weights.make_open_clip(cache / weights.ARCHITECTURE)}"
    return model, [str(path) for path in make_images(cache / "images", 64)]


@contextmanager
def training(cache: Path, folder: Path, is_off: bool) -> Iterator[None]:
    """Distil the demo teacher into the demo CLIP within the block, unless that is off."""
    if is_off:
        yield
        return
    note("starting the training run")
    data, run = cache / "swap-pairs", folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    if not data.exists():
        write_pairs(data, pairs(Split.TRAIN, DISTILLATION_SEED, 0, 1024))
    threads = str(max(1, servers.THREADS // 2))
    process = subprocess.Popen(
        [
            *("nice", "-n", "10", sys.executable, "-m", "sds_clip", "finetune", "--out", str(run)),
            *("--base", "demo", "--teacher", "demo", "--data", str(data), "--steps", "1000000"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
    )
    try:
        log = run / "log.jsonl"
        servers.wait_until(lambda: log.exists() or process.poll() is not None, "training")
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the training run ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait()


def capacity_of(
    port: int, images: Sequence[str], requests: int, *, calls: Sequence[Call] = CALLS, key: str = ""
) -> float:
    """Requests a second of 32 clients without pauses; their texts change only with the image."""
    numbered = [
        Call(call.name, call.path, call.body.replace(TEXT, text_of(10_000 + number)))
        for number in range(requests // len(calls))
        for call in calls
    ]
    spec = LoadSpec(port, numbered, list(images), 32, 64, requests, key=key)
    return run_load(spec).requests_per_second
