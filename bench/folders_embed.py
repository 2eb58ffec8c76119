"""The folder benchmark's embeddings, each in a process of its own: this project's, and a peer's."""

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.images.decode import ImageLimits
from sds_clip.models.vectors.clip_encoder import ClipEncoder
from sds_clip.models.vectors.embed import Options, embed
from sds_clip.models.vectors.files import open_vectors


@dataclass(frozen=True)
class EmbedSpec:
    """What one run embeds."""

    reference: str
    precision: str
    folder: str
    out: str
    batch_size: int
    threads: int


def measure_embed(spec: EmbedSpec) -> float:
    """Seconds from the folder to the written file, with the model loaded."""
    torch.set_num_threads(spec.threads)
    clip = load_clip(spec.reference, device="cpu", precision=spec.precision)
    encoder = ClipEncoder(clip, ImageLimits())
    first = min(Path(spec.folder).iterdir()).read_bytes()
    encoder.encode([encoder.prepare(first)] * spec.batch_size)
    start = time.perf_counter()
    embed([spec.folder], Path(spec.out), encoder, Options(spec.batch_size, threads=spec.threads))
    return time.perf_counter() - start


@dataclass(frozen=True)
class Infinity:
    """infinity-emb's offline engine, in its own virtual environment, over the same weights in transformers' layout."""

    environment: Path
    model: Path
    folder: Path
    out: Path
    batch_size: int

    def measure(self, variables: dict[str, str]) -> float:
        """Seconds from the folder to the written array, with the model loaded. Raises RuntimeError if it failed."""
        script = Path(__file__).with_name("infinity_folder.py")
        places = (self.model, self.folder, str(self.batch_size), self.out)
        command = (self.environment / "bin" / "python", script, *places)
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        if done.returncode != 0:
            raise RuntimeError(f"infinity-emb failed:\n{done.stderr[-3000:]}")
        return float(done.stdout.split()[-1])


def least_cosine(ours: Path, theirs: Path, sample: int) -> float:
    """The lowest cosine between two files' embeddings of the same images, of which about `sample` are compared.

    Raises RuntimeError if they are not of the same model.
    """
    vectors, rows = open_vectors(ours), np.load(theirs, mmap_mode="r")
    if len(vectors) != len(rows):
        raise RuntimeError(f"{ours} has {len(vectors)} rows, and {theirs} has {len(rows)}")
    cosines = [
        float(vectors.row(index) @ rows[index] / np.linalg.norm(rows[index]))
        for index in range(0, len(rows), max(1, len(rows) // sample))
    ]
    if min(cosines) < 0.999:
        raise RuntimeError(f"{theirs} is not of the same model: a cosine is {min(cosines)}")
    return min(cosines)
