"""The most memory that an evaluation takes, in a process of its own: the demo model on small images.

The set's folder comes as the only argument, MiB go to standard output.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.step_memory import read_peak
from models.checkpoints import load_clip
from models.evaluation.benchmark import run_benchmark
from models.evaluation.scorers import ClipScorer
from models.evaluation.winoground import winoground_benchmark


def peak_mib(folder: Path) -> float:
    """Evaluate a Winoground-shaped set in a child process; its highest resident memory."""
    command = [sys.executable, "-m", "bench.evaluate_memory", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"the evaluation whose memory is measured failed:\n{done.stderr[-3000:]}")
    return float(done.stdout)


def main() -> None:
    """The child's work."""
    clip = load_clip("demo", device="cpu", precision="float32")
    with TemporaryDirectory() as kept, ClipScorer(clip, Path(kept)) as scorer:
        run_benchmark(winoground_benchmark(Path(sys.argv[1])), scorer)
    print(read_peak(torch.device("cpu")))


if __name__ == "__main__":
    main()
