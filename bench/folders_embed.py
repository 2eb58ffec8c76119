"""The folder benchmark's embedding, in a process of its own."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from sds_clip.models.checkpoints.load import load_served
from sds_clip.models.images.decode import ImageLimits
from sds_clip.models.vectors.clip_encoder import ClipEncoder
from sds_clip.models.vectors.embed import Options, embed


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
    clip = load_served(spec.reference, device="cpu", precision=spec.precision)
    encoder = ClipEncoder(clip, ImageLimits())
    first = min(Path(spec.folder).iterdir()).read_bytes()
    encoder.encode([encoder.prepare(first)] * spec.batch_size)
    start = time.perf_counter()
    embed([spec.folder], Path(spec.out), encoder, Options(spec.batch_size, threads=spec.threads))
    return time.perf_counter() - start
