"""Train the demo teacher's transformer and text encoder on cached latents, resumable after a kill."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, PixArtTransformer2DModel
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5EncoderModel, T5Tokenizer

from sds_clip.demo.checkpoint import Part, log, resume, save_checkpoint
from sds_clip.demo.learning_rate import PlateauRate
from sds_clip.demo.lessons import CAPTIONS_EACH, Lessons
from sds_clip.demo.teacher import TIMESTEPS, new_scheduler, new_transformer
from sds_clip.demo.teacher_tokenizer import tokenize
from sds_clip.demo.train_vae import pixels_to_vae
from sds_clip.models.atomic import atomic_file
from sds_clip.models.clip.precision import native_bf16

ENCODED_AT_ONCE = 256
CHECKED = 8  # latents that are encoded again when a pool is read back
Networks = tuple[PixArtTransformer2DModel, T5EncoderModel]
Watch = Callable[[PixArtTransformer2DModel, T5EncoderModel], dict[str, float]]


@dataclass(frozen=True)
class TeacherRecipe(PlateauRate):
    """What determines the weights of the transformer and the text encoder, apart from the autoencoder's."""

    steps: int = 3_000
    batch_size: int = 128
    pool_size: int = 24_576  # scenes; each is seen about 16 times, with new wording and noise
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_share: float = 0.3  # final share of the steps, over which the rate falls linearly to zero
    text_share: float = 0.1  # of the learning rate, for the text encoder, which knows captions already
    weight_decay: float = 0.01
    average_decay: float = 0.999  # of the weights' moving average, which is what gets saved
    caption_dropout: float = 0.1  # so that there is an unconditional score
    # Most of what knowing the relation saves in loss lies above 850: layout is decided at high noise.
    high_noise_share: float = (
        0.6  # share of timesteps drawn from `high_noise` upwards, the others from `lowest_timestep`
    )
    lowest_timestep: int = 100
    high_noise: int = 850
    binding: bool = True  # False trains the placebo: its captions have the right words, bound at random
    seed: int = 1000  # differs from the student's, so that the two never see the same images


@dataclass(frozen=True)
class Pool:
    """Captions of the training images, several of each, and their latents, scaled to unit standard deviation."""

    captions: list[list[str]]
    latents: Float[Tensor, "n c h w"]


def train_teacher(
    recipe: TeacherRecipe,
    tokenizer: T5Tokenizer,
    text_encoder: T5EncoderModel,
    pool: Pool,
    watch: Watch,
    work_dir: Path,
    *,
    save_every: int = 200,
    watch_every: int = 500,
    compiled: bool = False,
) -> Networks:
    """Train, or continue from `work_dir/teacher.pt`; returns the averaged weights.

    Raises:
        RuntimeError: the loss is not finite.
        ValueError: the checkpoint is of another recipe, see `sds_clip.demo.checkpoint.resume`.
    """
    torch.manual_seed(recipe.seed)
    networks = nn.ModuleDict({"transformer": new_transformer(), "text_encoder": text_encoder})
    averaged = copy.deepcopy(networks).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [
            {"params": [*networks["transformer"].parameters()], "share": 1.0},
            {"params": [*text_encoder.parameters()], "share": recipe.text_share},
        ],
        betas=(0.9, 0.99),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    if compiled:
        for network in networks.values():
            network.compile()
    file = work_dir / "teacher.pt"
    parts: dict[str, Part] = {"networks": networks, "averaged": averaged, "optimizer": optimizer}
    first_step, seconds_before = resume(file, recipe, parts)
    began = time.monotonic() - seconds_before
    alphas_cumprod = new_scheduler().alphas_cumprod
    losses: list[float] = []
    for step in range(first_step, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * recipe.learning_rate_at(step)
        losses.append(_train_step(networks, optimizer, recipe, tokenizer, pool, alphas_cumprod, step))
        # Less averaging in early steps, so that the initial weights are soon forgotten.
        _average(averaged, networks, min(recipe.average_decay, (1 + step) / (10 + step)))
        done, seconds = step + 1, time.monotonic() - began
        if done % 50 == 0:
            loss = sum(losses) / len(losses)
            log(work_dir, {"step": done, "seconds": round(seconds), "loss": round(loss, 5)})
            losses.clear()
        if done % watch_every == 0 or done == recipe.steps:
            scores = watch(averaged["transformer"], averaged["text_encoder"])
            log(work_dir, {"step": done, "seconds": round(seconds), **scores})
        if done % save_every == 0 or done == recipe.steps:
            save_checkpoint(file, recipe, done, seconds, parts)
    return averaged["transformer"], averaged["text_encoder"]


def load_pool(recipe: TeacherRecipe, vae: AutoencoderKL, lessons: Lessons, work_dir: Path) -> Pool:
    """The captions of the recipe's images, and their latents, encoded once into `work_dir/latents.npy`.

    Raises:
        ValueError: the file holds the latents of a pool of another size, or of another autoencoder.
    """
    file = work_dir / "latents.npy"

    def encoded(start: int, count: int) -> Tensor:
        return encode(vae, torch.from_numpy(lessons.images(start, count)))

    if not file.exists():
        latents = [
            encoded(start, min(ENCODED_AT_ONCE, recipe.pool_size - start)).half().numpy()
            for start in range(0, recipe.pool_size, ENCODED_AT_ONCE)
        ]
        with atomic_file(file) as unfinished:
            np.save(unfinished, np.concatenate(latents))
    stored = torch.from_numpy(np.load(file))
    if len(stored) != recipe.pool_size:
        raise ValueError(f"{file} holds {len(stored)} latents, not {recipe.pool_size}; remove it.")
    # The same autoencoder in float16 makes slightly different ones.
    if not torch.allclose(encoded(0, CHECKED), stored[:CHECKED].float(), atol=0.05):
        raise ValueError(f"{file} holds the latents of another autoencoder; remove it.")
    return Pool(lessons.captions(0, recipe.pool_size, CAPTIONS_EACH, bound=recipe.binding), stored)


@torch.inference_mode()
def encode(vae: AutoencoderKL, images: Tensor) -> Float[Tensor, "b c h w"]:
    """Latents of images as the transformer expects them: the posterior's mean, scaled."""
    latents: Tensor = vae.encode(pixels_to_vae(images)).latent_dist.mean * vae.config.scaling_factor
    return latents


def batch_at(recipe: TeacherRecipe, pool: Pool, step: int) -> tuple[Tensor, list[str]]:
    """A step's latents and captions; each pass through the pool has a new order and chooses captions anew.

    A pure function of the recipe and the step.
    """
    steps_a_round = recipe.pool_size // recipe.batch_size
    turn, place = divmod(step, steps_a_round)
    order = np.random.default_rng((recipe.seed, turn)).permutation(recipe.pool_size)
    chosen = order[place * recipe.batch_size : (place + 1) * recipe.batch_size]
    rng = np.random.default_rng((recipe.seed, turn, place))
    captions = []
    for index in chosen:
        said = pool.captions[index]
        text = said[rng.integers(len(said))]
        captions.append("" if rng.random() < recipe.caption_dropout else text)
    return pool.latents[chosen].float(), captions


def _train_step(
    networks: nn.ModuleDict, optimizer: torch.optim.Optimizer, recipe: TeacherRecipe,
    tokenizer: T5Tokenizer, pool: Pool, alphas_cumprod: Tensor, step: int,
) -> float:  # fmt: skip
    latents, captions = batch_at(recipe, pool, step)
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    timesteps = _draw_timesteps(recipe, generator)
    noise = torch.randn(latents.shape, generator=generator)
    signal = alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    velocity = signal.sqrt() * noise - (1 - signal).sqrt() * latents
    # At this size the plain attention kernel is faster: the fused one's backward is slow on a CPU.
    with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()), sdpa_kernel(SDPBackend.MATH):
        tokens, mask = tokenize(tokenizer, captions)
        text = networks["text_encoder"](tokens, attention_mask=mask).last_hidden_state
        predicted = networks["transformer"](noisy, text, timesteps, encoder_attention_mask=mask).sample
    loss: Tensor = (predicted.float() - velocity).square().mean()
    if not torch.isfinite(loss):
        raise RuntimeError(f"the teacher's loss is {loss.item()} at step {step}; lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(networks.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def _draw_timesteps(recipe: TeacherRecipe, generator: torch.Generator) -> Tensor:
    count = recipe.batch_size
    high = torch.randint(recipe.high_noise, TIMESTEPS, (count,), generator=generator)
    anywhere = torch.randint(recipe.lowest_timestep, TIMESTEPS, (count,), generator=generator)
    return torch.where(torch.rand(count, generator=generator) < recipe.high_noise_share, high, anywhere)


@torch.no_grad()
def _average(averaged: nn.Module, networks: nn.Module, decay: float) -> None:
    torch._foreach_lerp_(list(averaged.parameters()), list(networks.parameters()), 1 - decay)
