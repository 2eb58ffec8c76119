"""Train the student of the world of pictures by captions alone.

Its pictures are those of all vendors but one. Three quarters of a batch are single pictures of different concepts,
the rest scenes of two to four. A run continues where it was stopped.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from open_clip.tokenizer import HFTokenizer
from torch import Tensor

from sds_clip.demo.checkpoint import Part, log, resume, save_checkpoint
from sds_clip.demo.emoji.draw import Drawer
from sds_clip.demo.emoji.measure import Student, compositions, zero_shot
from sds_clip.demo.emoji.packages import HELD_OUT, SEEN, Concept
from sds_clip.demo.emoji.pictures import Pictures
from sds_clip.demo.emoji.scenes import concept_split, draw_composition, single
from sds_clip.demo.emoji.student import CONTEXT_LENGTH, ENTRIES, model_config, narrowed, scaled, widened
from sds_clip.demo.learning_rate import PlateauRate
from sds_clip.demo.student import new_student
from sds_clip.demo.tokenizer import save_tokenizer
from sds_clip.demo.train_student import descend, parameter_groups
from sds_clip.demo.world import Split
from sds_clip.models.clip.precision import native_bf16
from sds_clip.models.clip.short_texts import encode_text, without_padding


@dataclass(frozen=True)
class Recipe(PlateauRate):
    """What determines the student's weights, apart from the machine's arithmetic."""

    steps: int = 8000
    batch_size: int = 192
    scenes: int = 48  # of a batch, with several pictures
    halved_steps: int = 5000  # the first ones, which see pictures of half the side
    learning_rate: float = 1.5e-3
    warmup_steps: int = 200
    decay_share: float = 0.4
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    max_logit_scale: float = 4.6052  # ln 100
    jitter: float = 0.3
    seed: int = 0


class Batches:
    """Batches of scenes, each by its step's number."""

    def __init__(self, recipe: Recipe, pictures: Pictures, tokenizer: HFTokenizer) -> None:
        self._recipe, self._tokenizer = recipe, tokenizer
        self._drawer = Drawer(pictures, [each.name for each in SEEN])
        drawn = set(self._drawer.names)
        self._concepts = [
            each for each in pictures.concepts if each.name in drawn and concept_split(each) is Split.TRAIN
        ]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Pixels and tokens of a step. No two single pictures are of the same concept."""
        recipe, rng = self._recipe, np.random.default_rng((self._recipe.seed, step))
        singles = rng.choice(len(self._concepts), recipe.batch_size - recipe.scenes, replace=False)
        scenes = [
            *(single(self._concepts[place], rng) for place in singles),
            *(draw_composition(Split.TRAIN, rng) for _ in range(recipe.scenes)),
        ]
        images = scaled(self._drawer(scenes, rng, jitter=recipe.jitter))
        if step < recipe.halved_steps:
            images = F.avg_pool2d(images, 2)
        tokens = self._tokenizer([each.caption for each in scenes])
        return images.to(memory_format=torch.channels_last), tokens


def train(
    recipe: Recipe,
    pictures: Pictures,
    work: Path,
    *,
    save_every: int = 100,
    watch_every: int = 1000,
    scenes: int = 256,
) -> CLIP:
    """Train, or continue from the checkpoint in `work`. At times it looks at `scenes` scenes of each kind.

    Raises:
        RuntimeError: the loss is not finite.
        ValueError: the checkpoint is of another recipe, see `sds_clip.demo.checkpoint.resume`.
    """
    tokenizer = _tokenizer(pictures, work / "student")
    batches = Batches(recipe, pictures, tokenizer)
    torch.manual_seed(recipe.seed)
    words = len(tokenizer.tokenizer)
    student = narrowed(new_student(words, model_config(words))).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameter_groups(student, recipe.weight_decay), betas=(0.9, 0.98), eps=1e-6)
    parts: dict[str, Part] = {"student": student, "optimizer": optimizer}
    file = work / "checkpoint.pt"
    first_step, seconds_before = resume(file, recipe, parts)
    began = time.monotonic() - seconds_before
    for step in range(first_step, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        loss = _step(student, optimizer, batches, recipe, step)
        done, seconds = step + 1, time.monotonic() - began
        if done % 50 == 0:
            log(work, {"step": done, "seconds": round(seconds), "loss": round(loss, 4)})
        if done % watch_every == 0 or done == recipe.steps:
            found = _watch(Student(student, tokenizer), pictures, scenes)
            log(work, {"step": done, "seconds": round(seconds), **found})
        if done % save_every == 0 or done == recipe.steps:
            save_checkpoint(file, recipe, done, time.monotonic() - began, parts)
    return widened(student).eval()


def _step(
    student: CLIP, optimizer: torch.optim.Optimizer, batches: Batches, recipe: Recipe, step: int
) -> float:
    images, tokens = batches(step)
    student.train()
    with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
        image_features = student.encode_image(images, normalize=True).float()
    text_features = F.normalize(encode_text(student, without_padding(student, tokens)), dim=-1)
    loss: Tensor = ClipLoss()(image_features, text_features, student.logit_scale.exp())
    descend(loss, step, student, optimizer, recipe.max_gradient_norm, recipe.max_logit_scale)
    return loss.item()


def _watch(student: Student, pictures: Pictures, scenes: int) -> dict[str, float]:
    student.network.eval()
    found = zero_shot(student, pictures, only_watched=True)
    found |= compositions(student, Drawer(pictures, [HELD_OUT.name]), Split.VALIDATION, scenes)
    return {name: round(right.float().mean().item(), 4) for name, right in found.items()}


def _tokenizer(pictures: Pictures, folder: Path) -> HFTokenizer:
    """Train the tokenizer on captions of all concepts, their keywords and scenes, if it is not there yet."""
    if not (folder / "tokenizer.json").exists():
        rng = np.random.default_rng(0)
        captions = [_all_words(each) for each in pictures.concepts]
        captions += [draw_composition(Split.TRAIN, rng).caption for _ in range(4096)]
        save_tokenizer(folder, captions, entries=ENTRIES, context_length=CONTEXT_LENGTH)
    return HFTokenizer(str(folder), context_length=CONTEXT_LENGTH)


def _all_words(concept: Concept) -> str:
    return " ".join([concept.name, *concept.keywords])
