"""The teacher's scores of the demo's pairs, computed once for all runs that share them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.training.config import FinetuneConfig
from models.training.parts import Parts, with_negatives
from models.training.run import score_targets

CHUNK = 512
DECIDING = (
    "negatives", "negatives_count", "negatives_seed", "score_draws", "score_error", "score_t_min",
    "score_t_max", "teacher_precision",
)  # fmt: skip


def chunks(config: FinetuneConfig, size: int, work_dir: Path) -> list[tuple[int, Path]]:
    """The parts that `size` pairs are scored in: where each starts, and its file."""
    options = json.dumps({name: getattr(config, name) for name in DECIDING})
    key = hashlib.sha256(options.encode()).hexdigest()[:12]
    return [(start, work_dir / f"scores-{key}-{start}.safetensors") for start in range(0, size, CHUNK)]


def score_chunk(config: FinetuneConfig, parts: Parts, start: int, file: Path) -> None:
    """Score the pairs of one part and keep them."""
    assert parts.teacher is not None
    pairs = with_negatives(config, parts.pairs)
    targets = score_targets(config, parts.base, parts.teacher, pairs, None)
    errors = []
    for index in range(start, min(start + CHUNK, len(pairs))):
        sample = pairs.sample(index)
        errors.append(targets([index], sample.captions, sample.negatives, 1 + config.negatives_count))
    unfinished = file.with_suffix(".unfinished")
    save_file({"errors": torch.cat(errors)}, unfinished)
    os.replace(unfinished, file)


def load_scores(config: FinetuneConfig, parts: Parts, work_dir: Path) -> dict[Any, Tensor]:
    """All parts, as `ScoreTargets` knows them."""
    pairs = with_negatives(config, parts.pairs)
    files = [file for _, file in chunks(config, len(pairs), work_dir)]
    errors = torch.cat([load_file(file)["errors"] for file in files])
    width = 1 + config.negatives_count
    known = {}
    for index, row in enumerate(errors):
        sample = pairs.sample(index)
        known[index, (*sample.captions, *sample.negatives[0]), width] = row
    return known
