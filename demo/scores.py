"""The teacher's scores of the demo's pairs, computed once for all runs that share them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import PIL.Image
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from sds_clip.models.atomic import write_atomic
from sds_clip.models.data.pairs import PairSet, Sample
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.latents import Latents
from sds_clip.models.training.parts import Parts, with_negatives
from sds_clip.models.training.score_targets import Targets, TeacherScores, candidates_of

CHUNK = 512  # pairs per file and task


def score_files(fingerprint: str, size: int, work_dir: Path) -> list[Path]:
    """The files for the scores of `size` pairs, CHUNK pairs each."""
    return [work_dir / f"scores-{fingerprint}-{start}.safetensors" for start in range(0, size, CHUNK)]


def score_chunk(config: FinetuneConfig, parts: Parts, number: int, file: Path, *, misled: bool) -> None:
    """Score one chunk of pairs, and store the scores with the seconds they took.

    `misled`: each sample's captions are scored with the image of the next sample.
    """
    assert parts.teacher is not None
    began = time.monotonic()
    pairs = with_negatives(config, parts.pairs)
    if misled:
        pairs = OtherImages(pairs)
    targets = TeacherScores(config, parts.teacher, Latents(parts.base, parts.teacher, pairs))
    width = config.negatives_count + (config.score_candidates == "all")
    errors = []
    for index in range(number * CHUNK, min((number + 1) * CHUNK, len(pairs))):
        sample = pairs.sample(index)
        candidates = candidates_of(config, sample.captions[0], sample.negatives[0][: config.negatives_count])
        errors.append(targets([index], [candidates], width))
    write_atomic(file, save({"errors": torch.cat(errors)}, {"seconds": str(time.monotonic() - began)}))


def scoring_seconds(files: Iterable[Path]) -> dict[str, float]:
    """Seconds of one core that the scores in each file took, by its name."""
    seconds = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            seconds[file.name] = float(opened.metadata()["seconds"])
    return seconds


class OtherImages(PairSet):
    """Pairs, each with the image of the next one."""

    def __init__(self, pairs: PairSet) -> None:
        self._pairs = pairs

    @property
    def content_hash(self) -> str:
        return f"{self._pairs.content_hash} with the next images"

    def __len__(self) -> int:
        return len(self._pairs)

    def sample(self, index: int) -> Sample:
        return self._pairs.sample(index)

    def image(self, index: int) -> PIL.Image.Image:
        return self._pairs.image((index + 1) % len(self))


def smoothed(own: float, temperature: float) -> Targets:
    """Scores of a teacher that gives each caption's own probability `own`, and the others equal ones."""

    def targets(_samples: Sequence[int], candidates: Sequence[tuple[str, ...]], width: int) -> Tensor:
        rows = []
        for captions in candidates:
            others = max(len(captions) - 1, 1)
            chosen = torch.full((width,), (1 - own) / others)
            chosen[0] = own
            rows.append(-temperature * chosen.log())
        return torch.stack(rows)

    return targets


def load_scores(files: Iterable[Path]) -> Targets:
    """The scores in all files, which a run takes in place of its own."""
    errors = torch.cat([load_file(file)["errors"] for file in files])

    def targets(samples: Sequence[int], *_: object) -> Tensor:
        return errors[list(samples)]

    return targets
