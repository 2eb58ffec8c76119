"""Kills an embedding at random moments, continues it, and compares the bytes with those of a whole run."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from bench import servers
from bench.report import note
from sds_clip.models.checkpoints import load_clip
from sds_clip.models.images import ImageLimits
from sds_clip.models.vectors.clip_encoder import ClipEncoder
from sds_clip.models.vectors.embed import Options, embed, work_folder

SEED = 62


@dataclass
class Kills:
    """What became of killed runs."""

    whole_s: float
    batches: int
    equal: int = 0
    finished: list[int] = field(default_factory=list)
    """Batches that were finished when a run was killed."""
    repeated: list[int] = field(default_factory=list)
    """Batches that the two processes computed beyond those of a whole run."""

    def text(self, images: int) -> str:
        return (
            f"{len(self.finished)} runs over {images} JPEGs in {self.batches} batches were killed with SIGKILL at "
            f"random moments, after {', '.join(map(str, self.finished))} finished batches, and continued. "
            f"{self.equal} have the bytes of a run that was not killed, in all of their files. Batches computed again: "
            f"{', '.join(map(str, self.repeated))}. A whole run, with start and model, took {self.whole_s:.1f} s."
        )


class _Telling(ClipEncoder):
    """Writes a line for each batch that it has computed."""

    calls: Path

    def encode(self, prepared: Sequence[Tensor]) -> Sequence[np.ndarray]:
        rows = super().encode(prepared)
        with self.calls.open("a") as file:
            file.write("batch\n")
        return rows


def kill_and_resume(cache: Path, folder: Path, model: str, suffix: str, kills: int, batch_size: int) -> Kills:
    """Kill `kills` runs, each within a random batch after its first one."""
    place = cache / "killed"
    out = place / f"vectors{suffix}"
    command = [sys.executable, "-m", "bench.folders_kill", model, str(folder), str(out), str(batch_size)]
    began = time.monotonic()
    process, first_at = _begun(command, cache, out, 1)
    process.wait()
    found = Kills(time.monotonic() - began, -(-len(list(folder.iterdir())) // batch_size))
    batch_s = (found.whole_s - first_at) / found.batches
    whole = _bytes(place)
    draw = random.Random(SEED)
    for number in range(kills):
        process, _ = _begun(command, cache, out, draw.randrange(1, found.batches))
        time.sleep(draw.uniform(0, batch_s))
        process.send_signal(signal.SIGKILL)
        process.wait()
        log = work_folder(out) / "log.jsonl"
        found.finished.append(_lines(log) if log.exists() else found.batches)
        note(f"kill {number + 1} of {kills}: after {found.finished[-1]} batches")
        subprocess.run(command, env=servers.environment_variables(cache), check=True)
        found.repeated.append(_lines(place / "calls") - found.batches)
        found.equal += _bytes(place) == whole
    shutil.rmtree(place)
    return found


def _begun(
    command: list[str], cache: Path, out: Path, batches: int
) -> tuple["subprocess.Popen[bytes]", float]:
    """Start a run from nothing, and wait until so many batches are finished; returns the seconds that this took."""
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    started = time.monotonic()
    process = subprocess.Popen(command, env=servers.environment_variables(cache))
    while process.poll() is None and _lines(work_folder(out) / "log.jsonl") < batches:
        time.sleep(0.005)
    return process, time.monotonic() - started


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


def _bytes(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != "calls"}


def main(model: str, folder: str, out: str, batch_size: str) -> None:
    encoder = _Telling(load_clip(model, device="cpu", precision="auto"), ImageLimits())
    encoder.calls = Path(out).with_name("calls")
    embed([folder], Path(out), encoder, Options(int(batch_size), threads=servers.THREADS))


if __name__ == "__main__":
    main(*sys.argv[1:])
