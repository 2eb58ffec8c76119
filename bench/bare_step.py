"""The bare forward and backward of a step's parts, what `Trainer.step` is held against.

Student, mapper and U-Net at the same shapes, in the same formats and with the same attention kernel, from inputs that
are ready on the device. No tokens are made, no captions embedded, nothing is drawn, checked, clipped or moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.train_parts import Model
from models.data.batches import Batch
from models.training.objective import timestep_range
from models.training.randomness import draw_noise, draw_timesteps, sub_batch
from models.training.trainer import Trainer, plain_attention


@dataclass(frozen=True, eq=False)
class Ready:
    """A step's inputs on the device: those that the trainer would make of the same batch."""

    pixels: Tensor
    tokens: Tensor
    places: list[int]
    captions: Tensor
    timesteps: Tensor
    noise: Tensor


def prepare(model: Model, trainer: Trainer, batch: Batch) -> Ready:
    """Make everything that is not forward or backward."""
    config, device, teacher = trainer.config, model.shapes.place, model.teacher
    places = sub_batch(len(batch.captions), config.teacher_batch_size)
    samples = [int(batch.indices[place]) for place in places]
    low, high = timestep_range(config, teacher.timesteps, batch.step, 1)
    return Ready(
        pixels=batch.pixels.to(device),
        tokens=model.tokenizer(batch.captions).to(device),
        places=places,
        captions=teacher.encode_captions([batch.captions[place] for place in places]),
        timesteps=draw_timesteps(config.seed, batch.step, samples, low, high).to(device),
        noise=draw_noise(config.seed, batch.step, samples, teacher.latent_shape).to(device),
    )


def bare_step(model: Model, ready: Ready, gradient: str) -> Tensor:
    """Leave L_CLIP + L_SDS's gradients on the parameters, and return its value."""
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


def _sds(model: Model, latents: Tensor, ready: Ready, gradient: str) -> Tensor:
    abar = model.teacher.alphas_cumprod[ready.timesteps].view(-1, 1, 1, 1)
    with torch.set_grad_enabled(gradient == "full"):
        noisy = abar.sqrt() * latents + (1 - abar).sqrt() * ready.noise
        output = model.teacher.unet(
            noisy.to(model.teacher.dtype), ready.timesteps, ready.captions, return_dict=False
        )[0]
        error = output.float() - ready.noise
        loss: Tensor = error.square().mean()
    if gradient == "sds":
        pull = 2 / error.numel() * abar.sqrt() * error
        loss = loss + (pull * (latents - latents.detach())).sum()
    return loss


def clear(model: Model) -> None:
    """Drop the gradients."""
    for parameter in (*model.student.values(), *model.mapper.parameters()):
        parameter.grad = None
