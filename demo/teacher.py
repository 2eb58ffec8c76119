"""The demo teacher: a small latent diffusion model in Stable Diffusion's layout, and its folder on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo.teacher_tokenizer import write_tokenizer
from demo.world import IMAGE_SIZE_PX

LATENT_CHANNELS = 8
LATENT_SIZE = 8
TEXT_WIDTH = 96
CONTEXT_LENGTH = 24  # the longest caption of the world takes 18 tokens, including start and end
TIMESTEPS = 1000


def new_vae() -> AutoencoderKL:
    """An autoencoder from 3x64x64 pixels in [-1, 1] to 8x8x8 latents, about 0.46 million parameters."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 24, 32, 48),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=IMAGE_SIZE_PX,
        mid_block_add_attention=False,
    )


def new_unet() -> UNet2DConditionModel:
    """A U-Net over 8x8x8 latents with cross-attention at both scales, about 2.5 million parameters."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(64, 88),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=8,
    )


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A causal text tower of about 0.4 million parameters; word and position embeddings have one scale.

    At transformers' own scales words outweigh positions from the start, and the teacher begins as a bag of
    words.
    """
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=4 * TEXT_WIDTH,
        projection_dim=TEXT_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        hidden_act="gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = CLIPTextModel(config)
    for embedding in (m for m in encoder.modules() if isinstance(m, nn.Embedding)):
        nn.init.normal_(embedding.weight, std=TEXT_WIDTH**-0.5)
    return encoder


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, with v-prediction.

    Layout is decided at high noise, where the error in the predicted noise is small whatever the caption
    says; the velocity's error is not.
    """
    return DDIMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


def save_teacher(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer,
    folder: Path,
) -> None:  # fmt: skip
    """Write the folder that `StableDiffusionPipeline.from_pretrained` reads, in float16.

    Casts the given networks in place.
    """
    pipeline = StableDiffusionPipeline(
        vae=vae,
        unet=unet,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    # A tokenizer remembers its last padding and truncation, and would save them.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
    write_tokenizer(tokenizer, folder / "tokenizer")
    _name_text_weights_as_before(folder / "text_encoder" / "model.safetensors")


def _name_text_weights_as_before(file: Path) -> None:
    """Name the text encoder's weights as in every Stable Diffusion folder.

    transformers 5 reads both names but saves without the prefix; 4 reads them only with it.
    """
    weights = load_file(file)
    prefix = "text_model."
    named = {prefix + name.removeprefix(prefix): weight for name, weight in weights.items()}
    save_file(named, file, metadata={"format": "pt"})
