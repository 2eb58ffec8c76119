"""Training steps: their time compared with their bare parts, and what they wait for.

The bare parts are the forward and backward of student, mapper and U-Net at the same shapes, in the same
formats and with the same attention kernel, from inputs already on the device. They include no tokenizing,
embedding of captions, random draws, checks, clipping or transfers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.report import note
from bench.rounds import in_turns, timed
from bench.train_parts import Model, new_loader
from models.data.batches import Batch
from models.data.pairs import PairSet
from models.teacher.caption_cache import CaptionCache
from models.training.distillation.teacher_loss import timestep_range
from models.training.randomness import draw_noise, draw_timesteps
from models.training.trainer import Trainer, plain_attention, sub_batch

FULL, SDS, RECOMPUTED = "full", "sds", "full, activation checkpointing"
VARIANTS = (FULL, SDS, RECOMPUTED)
STEP, BARE = "step", "bare"
# By variant and way (the trainer's step, or its bare parts): one duration per round.
Seconds = dict[tuple[str, str], list[float]]


@dataclass(frozen=True)
class Waits:
    """A stretch of training from files on disk: total seconds, and those spent waiting."""

    name: str
    steps: int
    examples: int
    seconds: float
    data_s: float
    captions_s: float


def gradient_of(variant: str) -> str:
    """The trainer's option for a variant."""
    return SDS if variant == SDS else FULL


def set_checkpointing(model: Model, variant: str) -> None:
    """Make the U-Net keep or recompute its activations."""
    if variant == RECOMPUTED:
        model.teacher.enable_activation_checkpointing()
    else:
        model.teacher.denoiser.disable_gradient_checkpointing()


def time_steps(model: Model, pairs: PairSet, rounds: int) -> Seconds:
    """Rounds after a warm-up, each on its own batch."""
    trainers = {variant: model.trainer(gradient_of(variant)) for variant in VARIANTS}
    batches = list(new_loader(model, pairs, rounds + 1))
    inputs = [prepare(model, trainers[FULL], batch) for batch in batches]
    runs: dict[tuple[str, str], Callable[[], float]] = {}

    def add(variant: str, way: str, works: list[Callable[[], Any]]) -> None:
        waiting = iter(works)

        def run() -> float:
            set_checkpointing(model, variant)
            seconds = timed(next(waiting), model.shapes.place)
            clear(model)
            return seconds

        runs[variant, way] = run

    for variant, trainer in trainers.items():
        add(variant, STEP, [partial(trainer.step, batch) for batch in batches])
        if variant != RECOMPUTED:
            add(variant, BARE, [partial(bare_step, model, ready, variant) for ready in inputs])
    seconds = in_turns("steps", rounds, runs, warm_up=True)
    set_checkpointing(model, FULL)
    return seconds


def measure_waits(model: Model, pairs: PairSet, steps: int) -> list[Waits]:
    """Train from JPEGs on disk, with nothing cached; then with captions cached on disk."""
    note("waits: captions embedded in the step")
    waits = [_train(model, pairs, steps, "captions embedded in the step")]
    with TemporaryDirectory() as folder:
        model.teacher.caption_cache = CaptionCache(Path(folder))
        captions = [caption for index in range(len(pairs)) for caption in pairs.sample(index).captions]
        model.teacher.encode_captions(captions)
        model.teacher.caption_cache = CaptionCache(Path(folder))  # drops what the first cache held in memory
        note("waits: captions from the cache")
        waits.append(_train(model, pairs, steps, "captions from the cache on disk"))
        model.teacher.caption_cache = None
    return waits


def _train(model: Model, pairs: PairSet, steps: int, name: str) -> Waits:
    trainer = model.trainer(FULL)
    with closing(new_loader(model, pairs, steps + 1)) as loader:
        batches = iter(loader)
        trainer.step(next(batches))
        data_s, captions_s = loader.wait_s, trainer.embedding_s
        started = time.perf_counter()
        for batch in batches:
            trainer.step(batch)
        seconds = time.perf_counter() - started
    examples = steps * model.shapes.batch_size
    return Waits(name, steps, examples, seconds, loader.wait_s - data_s, trainer.embedding_s - captions_s)


@dataclass(frozen=True, eq=False)
class StepInputs:
    """A step's inputs on the device, as the trainer would make them from the same batch."""

    pixels: Tensor
    tokens: Tensor
    places: list[int]
    captions: Tensor
    timesteps: Tensor
    noise: Tensor


def prepare(model: Model, trainer: Trainer, batch: Batch) -> StepInputs:
    """Make everything that is not part of forward or backward."""
    config, device, teacher = trainer.config, model.shapes.place, model.teacher
    places = sub_batch(len(batch.captions), config.teacher_batch_size)
    samples = [int(batch.indices[place]) for place in places]
    low, high = timestep_range(config, teacher.timesteps, batch.step, 1)
    return StepInputs(
        pixels=batch.pixels.to(device),
        tokens=model.tokenizer(batch.captions).to(device),
        places=places,
        captions=teacher.encode_captions([batch.captions[place] for place in places]),
        timesteps=draw_timesteps(config.seed, batch.step, samples, low, high).to(device),
        noise=draw_noise(config.seed, batch.step, samples, teacher.latent_shape).to(device),
    )


def bare_step(model: Model, ready: StepInputs, gradient: str) -> Tensor:
    """Leave the gradients of L_CLIP + L_SDS on the parameters, and return the loss."""
    device, dtype = model.shapes.place, model.shapes.dtype
    with plain_attention(device):
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            image_features = model.network.encode_image(ready.pixels).float()
            text_features = model.network.encode_text(ready.tokens).float()
        image, text = F.normalize(image_features, dim=-1), F.normalize(text_features, dim=-1)
        logits = model.network.logit_scale.exp() * image @ text.T
        target = torch.arange(len(logits), device=device)
        clip = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        latents = model.mapper.linear(image[ready.places]).view_as(ready.noise)
        loss = clip + _sds(model, latents, ready, gradient)
        torch.autograd.backward(loss)
    return loss.detach()


def _sds(model: Model, latents: Tensor, ready: StepInputs, gradient: str) -> Tensor:
    abar = model.teacher.alphas_cumprod[ready.timesteps].view(-1, 1, 1, 1)
    with torch.set_grad_enabled(gradient == "full"):
        noisy = abar.sqrt() * latents + (1 - abar).sqrt() * ready.noise
        output = model.teacher.denoiser(
            noisy.to(model.teacher.dtype), ready.timesteps, ready.captions, return_dict=False
        )[0]
        error = output.float() - ready.noise
        loss: Tensor = error.square().mean()
    if gradient == "sds":
        pull = 2 / error.numel() * abar.sqrt() * error
        loss = loss + (pull * (latents - latents.detach())).sum()
    return loss


def clear(model: Model) -> None:
    for parameter in (*model.student.values(), *model.mapper.parameters()):
        parameter.grad = None
