"""Train the demo teacher's text encoder on captions alone, resumable after a kill.

Published diffusion models have a text encoder that was trained on text before. This one reads two captions of an
image, and tells the words that are hidden in either. The other caption says most of them too. The linear
head that tells them is dropped afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import T5EncoderModel, T5Tokenizer

from sds_clip.demo.checkpoint import Part, log, resume, save_checkpoint
from sds_clip.demo.learning_rate import PlateauRate
from sds_clip.demo.lessons import Lessons
from sds_clip.demo.teacher import TEXT_WIDTH, new_text_encoder


@dataclass(frozen=True)
class TextRecipe(PlateauRate):
    """What determines the weights with which the text encoder enters the teacher's training."""

    steps: int = 1_200
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 100
    decay_share: float = 0.5
    weight_decay: float = 0.01
    hidden: float = 0.3  # share of the words
    seed: int = 1000


def train_text_encoder(
    recipe: TextRecipe, tokenizer: T5Tokenizer, lessons: Lessons, work_dir: Path, *, save_every: int = 200
) -> T5EncoderModel:
    """Train, or continue from `work_dir/text_encoder.pt`.

    Raises:
        ValueError: the checkpoint is of another recipe, see `sds_clip.demo.checkpoint.resume`.
    """
    torch.manual_seed(recipe.seed)
    networks = nn.ModuleDict(
        {"encoder": new_text_encoder(tokenizer), "head": nn.Linear(TEXT_WIDTH, len(tokenizer))}
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
        loss = _train_step(networks, optimizer, recipe, tokenizer, lessons, step)
        done, seconds = step + 1, time.monotonic() - began
        if done % 100 == 0:
            log(work_dir, {"text_step": done, "seconds": round(seconds), "loss": round(loss, 4)})
        if done % save_every == 0 or done == recipe.steps:
            save_checkpoint(file, recipe, done, seconds, parts)
    encoder = networks["encoder"]
    assert isinstance(encoder, T5EncoderModel)
    return encoder


def _train_step(
    networks: nn.ModuleDict, optimizer: torch.optim.Optimizer, recipe: TextRecipe, tokenizer: T5Tokenizer,
    lessons: Lessons, step: int,
) -> float:  # fmt: skip
    captions = lessons.captions(step * recipe.batch_size, recipe.batch_size, 2)
    tokens, mask = side_by_side(tokenizer, captions)
    lots = torch.from_numpy(np.random.default_rng((recipe.seed, step)).random(tokens.shape))
    hidden = (lots < recipe.hidden) & (mask == 1) & (tokens != tokenizer.eos_token_id)
    shown = tokens.masked_fill(hidden, tokenizer.unk_token_id)
    read: Tensor = networks["encoder"](shown, attention_mask=mask).last_hidden_state
    loss = cross_entropy(networks["head"](read[hidden]), tokens[hidden])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def side_by_side(
    tokenizer: T5Tokenizer, captions: Sequence[Sequence[str]]
) -> tuple[Int[Tensor, "b s"], Int[Tensor, "b s"]]:
    """The tokens of the captions of each image, one after the other, and a mask that is 1 for a token."""
    read = tokenizer(
        [tokenizer.eos_token.join(each) for each in captions], padding="longest", return_tensors="pt"
    )
    return read.input_ids, read.attention_mask
