"""Train the demo student: in-batch contrastive learning on pairs made on the fly, resumable after a kill."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sds_clip.demo.checkpoint import Part, log, resume, save_checkpoint
from sds_clip.demo.learning_rate import PlateauRate
from sds_clip.demo.places import bindings_loss, new_head, place_targets, places_loss, told_captions
from sds_clip.demo.sets import training_pairs
from sds_clip.demo.student import new_student, pixels_to_input
from sds_clip.demo.validation import ValidationSet, validate
from sds_clip.demo.world import with_places_exchanged
from sds_clip.models.clip.precision import native_bf16
from sds_clip.models.clip.short_texts import encode_text, without_padding
from sds_clip.models.clip.text_map import text_projection

Student: TypeAlias = CLIP | CustomTextCLIP


@dataclass(frozen=True)
class Recipe(PlateauRate):
    """What determines the student's weights, apart from the machine's arithmetic."""

    steps: int = 2600
    heads_steps: int = 1500  # first, in which the towers learn what their heads tell, and nothing is compared
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    decay_share: float = 0.3  # final share of the steps, over which the rate falls linearly to zero
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    max_logit_scale: float = 4.6052  # ln 100, the usual ceiling
    # Each tower tells from its own embedding what is where, and which colour belongs to which shape. Each image is
    # compared with its caption, and likewise with the caption that has the two places exchanged. So comparing has no
    # use for places.
    places_weight: float = 1.0
    bindings_weight: float = 1.0
    seed: int = 0


def train_student(
    recipe: Recipe,
    tokenizer: HFTokenizer,
    validation: ValidationSet,
    work_dir: Path,
    *,
    save_every: int = 100,
    validate_every: int = 250,
    compiled: bool = False,
    new: Callable[[int], Student] = new_student,
) -> Student:
    """Train, or continue from `work_dir/checkpoint.pt`; progress goes to `work_dir/log.jsonl`.

    `new` makes a student for so many words. A SigLIP is trained by its own loss.

    Raises:
        RuntimeError: the loss is not finite.
        ValueError: the checkpoint is of another recipe, see `sds_clip.demo.checkpoint.resume`.
    """
    torch.manual_seed(recipe.seed)
    student = new(len(tokenizer.tokenizer))
    heads = new_heads(student)
    groups = [
        *parameter_groups(student, recipe.weight_decay),
        {"params": [*heads.parameters()], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-6)
    file = work_dir / "checkpoint.pt"
    parts: dict[str, Part] = {"student": student, "heads": heads, "optimizer": optimizer}
    first_step, seconds_before = resume(file, recipe, parts)
    contrastive = ClipLoss() if student.logit_bias is None else SigLipLoss()
    if compiled:
        assert isinstance(student, CLIP)
        student.visual.compile()
        student.transformer.compile()
    began = time.monotonic() - seconds_before
    for step in range(first_step, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        figures = _train_step(student, heads, optimizer, contrastive, recipe, tokenizer, step)
        done = step + 1
        seconds = time.monotonic() - began
        if done % 50 == 0:
            rounded = {name: round(value, 4) for name, value in figures.items()}
            log(work_dir, {"step": done, "seconds": round(seconds), **rounded})
        if done % validate_every == 0 or done == recipe.steps:
            log(work_dir, {"step": done, "seconds": round(seconds), **_measure(student, validation)})
        if done % save_every == 0 or done == recipe.steps:
            save_checkpoint(file, recipe, done, seconds, parts)
    return student.eval()


def _train_step(
    student: Student, heads: nn.ModuleDict, optimizer: torch.optim.Optimizer, contrastive: ClipLoss | SigLipLoss,
    recipe: Recipe, tokenizer: HFTokenizer, step: int,
) -> dict[str, float]:  # fmt: skip
    """Returns the contrastive loss, and the losses of each tower's head."""
    images, tokens, seen, told = _batch(recipe, tokenizer, step)
    student.train()
    # At this size the plain attention kernel is faster: the fused one's backward is slow on a CPU.
    with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()), sdpa_kernel(SDPBackend.MATH):
        image_features = student.encode_image(images, normalize=True).float()
        text_features = F.normalize(encode_text(student, without_padding(student, tokens)), dim=-1).float()
    scaling = [student.logit_scale.exp()] + ([] if student.logit_bias is None else [student.logit_bias])
    captions, exchanged = text_features.chunk(2)
    alignment = (
        contrastive(image_features, captions, *scaling) + contrastive(image_features, exchanged, *scaling)
    ) / 2
    # A unit vector's entries are small: the heads see them at unit variance.
    scale = image_features.shape[1] ** 0.5
    told_by = {
        "image": (heads["image"](scale * image_features), seen),
        "text": (heads["text"](scale * text_features), told),
    }
    places = {tower: places_loss(*logits_and_targets) for tower, logits_and_targets in told_by.items()}
    bindings = {tower: bindings_loss(*logits_and_targets) for tower, logits_and_targets in told_by.items()}
    loss: Tensor = (
        (step >= recipe.heads_steps) * alignment
        + recipe.places_weight * sum(places.values())
        + recipe.bindings_weight * sum(bindings.values())
    )
    descend(loss, step, student, optimizer, recipe.max_gradient_norm, recipe.max_logit_scale)
    figures = {
        "loss": alignment,
        **{f"{tower}_places_loss": value for tower, value in places.items()},
        **{f"{tower}_bindings_loss": value for tower, value in bindings.items()},
    }
    return {name: value.item() for name, value in figures.items()}


def descend(
    loss: Tensor, step: int, student: Student, optimizer: torch.optim.Optimizer, max_gradient_norm: float,
    max_logit_scale: float,
) -> None:  # fmt: skip
    """Take a step of the optimizer. Raises RuntimeError if the loss is not finite."""
    if not torch.isfinite(loss):
        raise RuntimeError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(trained, max_gradient_norm)
    optimizer.step()
    with torch.no_grad():
        student.logit_scale.clamp_(0, max_logit_scale)


def new_heads(student: Student) -> nn.ModuleDict:
    """A linear head for each tower, which tells places from the embedding. They are dropped after the training."""
    last = text_projection(student)
    width = last.out_features if isinstance(last, nn.Linear) else last.shape[1]
    return nn.ModuleDict({tower: new_head(width) for tower in ("image", "text")})


def _batch(recipe: Recipe, tokenizer: HFTokenizer, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels and tokens, and what is where in the images and by the captions.

    The captions come first, then the same wordings with the two places exchanged.
    """
    pairs = training_pairs(recipe.seed, step * recipe.batch_size, recipe.batch_size)
    exchanged = [with_places_exchanged(scene) if len(scene.things) == 2 else scene for scene in pairs.scenes]
    said = [
        told_captions(each, np.random.default_rng((recipe.seed, step))) for each in (pairs.scenes, exchanged)
    ]
    return (
        pixels_to_input(torch.from_numpy(pairs.images)),
        tokenizer([caption for captions, _ in said for caption in captions]),
        place_targets(pairs.scenes, [True] * len(pairs.scenes)),
        torch.cat([targets for _, targets in said]),
    )


def parameter_groups(student: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices only, not for gains, biases, embeddings and the temperature."""
    kept: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        (kept if parameter.ndim < 2 or "embedding" in name else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _measure(student: Student, validation: ValidationSet) -> dict[str, float]:
    student.eval()
    return {name: round(value, 4) for name, value in validate(student, validation).items()}
