"""The teacher's scores of the demo's pairs, computed once for all runs that share them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from models.atomic import write_atomic
from models.training.config import FinetuneConfig
from models.training.latents import Latents
from models.training.parts import Parts, with_negatives
from models.training.score_targets import ScoreTargets, Targets

CHUNK = 512  # pairs per file and task


def score_files(fingerprint: str, size: int, work_dir: Path) -> list[Path]:
    """The files for the scores of `size` pairs, CHUNK pairs each."""
    return [work_dir / f"scores-{fingerprint}-{start}.safetensors" for start in range(0, size, CHUNK)]


def score_chunk(config: FinetuneConfig, parts: Parts, number: int, file: Path) -> None:
    """Score one chunk of pairs, and store the scores with the seconds they took."""
    assert parts.teacher is not None
    began = time.monotonic()
    pairs = with_negatives(config, parts.pairs)
    targets = ScoreTargets(config, parts.teacher, Latents(parts.base, parts.teacher, pairs))
    errors = []
    for index in range(number * CHUNK, min((number + 1) * CHUNK, len(pairs))):
        sample = pairs.sample(index)
        errors.append(targets([index], sample.captions, sample.negatives, 1 + config.negatives_count))
    write_atomic(file, save({"errors": torch.cat(errors)}, {"seconds": str(time.monotonic() - began)}))


def scoring_seconds(files: Iterable[Path]) -> float:
    """Seconds of one core that the scores in these files took."""
    total = 0.0
    for file in files:
        with safe_open(file, "pt") as opened:
            total += float(opened.metadata()["seconds"])
    return total


def load_scores(files: Iterable[Path]) -> Targets:
    """The scores in all files, which a run takes in place of its own."""
    errors = torch.cat([load_file(file)["errors"] for file in files])

    def targets(samples: Sequence[int], *_: object) -> Tensor:
        return errors[list(samples)]

    return targets
