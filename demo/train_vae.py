"""Train the demo teacher's autoencoder: squared error and a little KL, resumable after a kill."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor

from sds_clip.demo.checkpoint import log, resume, save_checkpoint
from sds_clip.demo.lessons import Lessons
from sds_clip.demo.teacher import new_vae
from sds_clip.models.clip.precision import native_bf16

SCALE_IMAGES = 1024  # number of images over which the latents' scale is measured


@dataclass(frozen=True)
class VaeRecipe:
    """What determines the autoencoder's weights."""

    steps: int = 1200
    batch_size: int = 64
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    kl_weight: float = 1e-4  # per latent element, relative to the mean squared error per pixel
    seed: int = 1000  # differs from the student's, so that the two never see the same images

    def decays_at(self, step: int) -> bool:
        """The one-cycle schedule depends on the number of steps from the start."""
        return True


def pixels_to_vae(images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 h w"]:
    """Pixels in [-1, 1], the input range of diffusers' autoencoders."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def train_vae(recipe: VaeRecipe, lessons: Lessons, work_dir: Path, *, save_every: int = 100) -> AutoencoderKL:
    """Train, or continue from `work_dir/vae.pt`; the scaling factor is in the returned configuration.

    Raises:
        RuntimeError: the loss is not finite.
        ValueError: the checkpoint is of another recipe, see `sds_clip.demo.checkpoint.resume`.
    """
    torch.manual_seed(recipe.seed)
    vae = new_vae()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, recipe.steps, pct_start=recipe.warmup_steps / recipe.steps
    )
    file, parts = work_dir / "vae.pt", {"vae": vae, "optimizer": optimizer, "schedule": schedule}
    first_step, seconds_before = resume(file, recipe, parts)
    began = time.monotonic() - seconds_before
    for step in range(first_step, recipe.steps):
        error, kl = _train_step(vae, optimizer, recipe, lessons, step)
        schedule.step()
        done, seconds = step + 1, time.monotonic() - began
        if done % 50 == 0:
            log(work_dir, {"vae_step": done, "seconds": round(seconds), "error": error, "kl": kl})
        if done % save_every == 0 or done == recipe.steps:
            save_checkpoint(file, recipe, done, seconds, parts)
    vae.eval().requires_grad_(False)
    vae.register_to_config(scaling_factor=round(1 / _latent_std(vae, lessons), 4))
    return vae


def _train_step(
    vae: AutoencoderKL, optimizer: torch.optim.Optimizer, recipe: VaeRecipe, lessons: Lessons, step: int
) -> tuple[float, float]:
    pixels = pixels_to_vae(torch.from_numpy(lessons.images(step * recipe.batch_size, recipe.batch_size)))
    noise = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
    with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample(noise)).sample
    error = (decoded.float() - pixels).square().mean()
    kl = posterior.kl().float().mean() / posterior.mean[0].numel()
    loss = error + recipe.kl_weight * kl
    if not torch.isfinite(loss):
        raise RuntimeError(f"the autoencoder's loss is {loss.item()} at step {step}; lower the learning rate")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimizer.step()
    return error.item(), kl.item()


@torch.inference_mode()
def _latent_std(vae: AutoencoderKL, lessons: Lessons) -> float:
    batches = torch.split(pixels_to_vae(torch.from_numpy(lessons.images(0, SCALE_IMAGES))), 64)
    return torch.cat([vae.encode(batch).latent_dist.mean for batch in batches]).std().item()
