"""What the teacher's training logs: the text score of its denoising error, by kind of swap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from demo.render import render
from demo.teacher import LATENT_CHANNELS, LATENT_SIZE, new_scheduler
from demo.train_teacher import encode
from demo.winoground_sets import KINDS, winoground_items
from demo.world import IMAGE_SIZE_PX, Split
from models.teacher.diffusion_score import denoising_errors_many, draws
from models.teacher.teacher import Teacher

BATCH_SIZE = 256


@dataclass(frozen=True)
class TeacherValidation:
    """Winoground-style items; an item's two images, and its two captions, are adjacent."""

    latents: Float[Tensor, "pictures c h w"]
    captions: list[str]
    kinds: list[str]


def load_teacher_validation(vae: AutoencoderKL, items_per_kind: int = 100) -> TeacherValidation:
    """Draw and encode items of the validation part."""
    items = winoground_items(Split.VALIDATION, items_per_kind)
    images = torch.from_numpy(np.stack([render(scene) for item in items for scene in item.scenes]))
    return TeacherValidation(
        latents=encode(vae, images),
        captions=[text for item in items for text in item.captions],
        kinds=[item.kind for item in items],
    )


def text_scores(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    validation: TeacherValidation,
    *,
    draws_each: int = 8,
) -> dict[str, float]:
    """Share of images whose own caption denoises them better, and of items where both do, by kind.

    The error is the velocity's. Noise and timesteps are the same for both captions of an image, and in every
    call. Both networks must be frozen and in eval mode.
    """
    errors = _errors(_in_memory(unet, text_encoder, tokenizer), validation, draws_each)
    right = errors.diagonal(dim1=1, dim2=2) < errors.flip(2).diagonal(dim1=1, dim2=2)
    scores: dict[str, float] = {}
    for kind in KINDS:
        chosen = right[torch.tensor([name == kind for name in validation.kinds])]
        scores[f"{kind}_pair"] = round(chosen.float().mean().item(), 4)
        scores[f"{kind}_text"] = round(chosen.all(dim=1).float().mean().item(), 4)
    return scores


def _errors(teacher: Teacher, validation: TeacherValidation, draws_each: int) -> Float[Tensor, "items 2 2"]:
    """The error of each image under each caption of its item."""
    latents = validation.latents
    drawn = draws(len(latents) * draws_each, teacher.latent_shape, teacher.timesteps, seed=0)
    captions = teacher.encode_captions(validation.captions)
    of_item = captions.view(-1, 2, *captions.shape[1:])
    errors = denoising_errors_many(
        teacher,
        latents,
        of_item.repeat_interleave(2, dim=0),
        drawn.timesteps.view(-1, draws_each),
        drawn.noise.view(-1, draws_each, *teacher.latent_shape),
        batch_size=BATCH_SIZE,
        error_of="velocity",
    )
    return errors.mean(dim=2).view(-1, 2, 2)


def _in_memory(unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer) -> Teacher:
    """The teacher in its current state of training."""
    return Teacher(
        reference="the demo teacher in training",
        version="",
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        vae=None,
        prediction_type="v_prediction",
        alphas_cumprod=new_scheduler().alphas_cumprod,
        latent_shape=(LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE),
        resolution_px=IMAGE_SIZE_PX,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
