"""Train the demo teacher's text encoder on captions alone, resumable after a kill.

Published diffusion models have a text encoder that was trained on text before. This one learns to tell from a caption
what is where: a linear head reads it from the mean of the encoder's outputs, and is dropped afterwards.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer

from sds_clip.demo.checkpoint import Part, log, resume, save_checkpoint
from sds_clip.demo.learning_rate import PlateauRate
from sds_clip.demo.places import SLOT_SIZES, new_head, slots_loss, told_captions
from sds_clip.demo.sets import scenes
from sds_clip.demo.teacher import TEXT_WIDTH, new_text_encoder
from sds_clip.demo.teacher_tokenizer import tokenize
from sds_clip.demo.world import Split


@dataclass(frozen=True)
class TextRecipe(PlateauRate):
    """What determines the weights with which the text encoder enters the teacher's training."""

    steps: int = 1_200
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.5
    weight_decay: float = 0.01
    seed: int = 1000


def train_text_encoder(
    recipe: TextRecipe, tokenizer: T5Tokenizer, work_dir: Path, *, save_every: int = 200
) -> T5EncoderModel:
    """Train, or continue from `work_dir/text_encoder.pt`.

    Raises:
        ValueError: the checkpoint is of another recipe, see `sds_clip.demo.checkpoint.resume`.
    """
    torch.manual_seed(recipe.seed)
    networks = nn.ModuleDict(
        {"encoder": new_text_encoder(tokenizer), "head": new_head(TEXT_WIDTH, SLOT_SIZES)}
    )
    optimizer = torch.optim.AdamW(
        networks.parameters(), betas=(0.9, 0.99), weight_decay=recipe.weight_decay, fused=True
    )
    file = work_dir / "text_encoder.pt"
    parts: dict[str, Part] = {"networks": networks, "optimizer": optimizer}
    first_step, seconds_before = resume(file, recipe, parts)
    began = time.monotonic() - seconds_before
    for step in range(first_step, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate_at(step)
        loss = _train_step(networks, optimizer, recipe, tokenizer, step)
        done, seconds = step + 1, time.monotonic() - began
        if done % 100 == 0:
            log(work_dir, {"text_step": done, "seconds": round(seconds), "loss": round(loss, 4)})
        if done % save_every == 0 or done == recipe.steps:
            save_checkpoint(file, recipe, done, seconds, parts)
    encoder = networks["encoder"]
    assert isinstance(encoder, T5EncoderModel)
    return encoder


def _train_step(
    networks: nn.ModuleDict, optimizer: torch.optim.Optimizer, recipe: TextRecipe, tokenizer: T5Tokenizer, step: int
) -> float:  # fmt: skip
    drawn = scenes(Split.TRAIN, recipe.seed, step * recipe.batch_size, recipe.batch_size)
    captions, targets = told_captions(drawn, np.random.default_rng((recipe.seed, step, 2)))
    tokens, mask = tokenize(tokenizer, captions)
    hidden: Tensor = networks["encoder"](tokens, attention_mask=mask).last_hidden_state
    weights = mask / mask.sum(dim=1, keepdim=True)
    loss = slots_loss(networks["head"]((hidden * weights[:, :, None]).sum(dim=1)), targets)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
    optimizer.step()
    return loss.item()
