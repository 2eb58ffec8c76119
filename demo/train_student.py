"""Train the demo student: in-batch contrastive learning on pairs made on the fly, resumable after a kill."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.loss import ClipLoss
from open_clip.model import CLIP
from open_clip.tokenizer import HFTokenizer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from demo.checkpoint import log, resume, save_checkpoint
from demo.learning_rate import PlateauRate
from demo.sets import training_pairs
from demo.student import new_student, pixels_to_input
from demo.validation import ValidationSet, validate
from models.precision import native_bf16


@dataclass(frozen=True)
class Recipe(PlateauRate):
    """What determines the student's weights, apart from the machine's arithmetic."""

    steps: int = 1400
    batch_size: int = 128
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    decay_share: float = 0.3  # final share of the steps, over which the rate falls linearly to zero
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    max_logit_scale: float = 4.6052  # ln 100, the usual ceiling
    seed: int = 0


def train_student(
    recipe: Recipe,
    tokenizer: HFTokenizer,
    validation: ValidationSet,
    work_dir: Path,
    *,
    save_every: int = 100,
    validate_every: int = 250,
) -> CLIP:
    """Train, or continue from `work_dir/checkpoint.pt`; progress goes to `work_dir/log.jsonl`.

    Raises:
        RuntimeError: the loss is not finite.
        ValueError: the checkpoint is of another recipe, see `demo.checkpoint.resume`.
    """
    torch.manual_seed(recipe.seed)
    student = new_student(len(tokenizer.tokenizer))
    optimizer = torch.optim.AdamW(_parameter_groups(student, recipe), betas=(0.9, 0.98), eps=1e-6)
    file, parts = work_dir / "checkpoint.pt", {"student": student, "optimizer": optimizer}
    first_step, seconds_before = resume(file, recipe, parts)
    contrastive = ClipLoss()
    began = time.monotonic() - seconds_before
    for step in range(first_step, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        loss = _train_step(student, optimizer, contrastive, recipe, tokenizer, step)
        done = step + 1
        seconds = time.monotonic() - began
        if done % 50 == 0:
            log(work_dir, {"step": done, "seconds": round(seconds), "loss": round(loss, 4)})
        if done % validate_every == 0 or done == recipe.steps:
            log(work_dir, {"step": done, "seconds": round(seconds), **_measure(student, validation)})
        if done % save_every == 0 or done == recipe.steps:
            save_checkpoint(file, recipe, done, seconds, parts)
    return student.eval()


def _train_step(
    student: CLIP, optimizer: torch.optim.Optimizer, contrastive: ClipLoss,
    recipe: Recipe, tokenizer: HFTokenizer, step: int,
) -> float:  # fmt: skip
    images, tokens = _batch(recipe, tokenizer, step)
    student.train()
    # At this size the plain attention kernel is faster: the fused one's backward is slow on a CPU.
    with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()), sdpa_kernel(SDPBackend.MATH):
        image_features, text_features, logit_scale = student(images, tokens)
    loss: Tensor = contrastive(image_features.float(), text_features.float(), logit_scale)
    if not torch.isfinite(loss):
        raise RuntimeError(f"the loss is {loss.item()} at step {step}; lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(student.parameters(), recipe.max_gradient_norm)
    optimizer.step()
    with torch.no_grad():
        student.logit_scale.clamp_(0, recipe.max_logit_scale)
    return loss.item()


def _batch(recipe: Recipe, tokenizer: HFTokenizer, step: int) -> tuple[Tensor, Tensor]:
    pairs = training_pairs(recipe.seed, step * recipe.batch_size, recipe.batch_size)
    return pixels_to_input(torch.from_numpy(pairs.images)), tokenizer(pairs.captions)


def _parameter_groups(student: CLIP, recipe: Recipe) -> list[dict[str, object]]:
    """Weight decay for matrices only, not for gains, biases, embeddings and the temperature."""
    kept: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in student.named_parameters():
        (kept if parameter.ndim < 2 or "embedding" in name else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": kept, "weight_decay": 0.0}]


def _measure(student: CLIP, validation: ValidationSet) -> dict[str, float]:
    student.eval()
    return {name: round(value, 4) for name, value in validate(student, validation).items()}
