"""The demo teacher: a small latent diffusion transformer in PixArt's layout, and its folder on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel
from torch import nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from sds_clip.demo.world import IMAGE_SIZE_PX

LATENT_CHANNELS = 8
LATENT_SIZE = 8
WIDTH = 192
HEADS = 6
TEXT_WIDTH = 128
CONTEXT_LENGTH = 24  # the longest caption of the world takes 17 tokens, including the end
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


def new_transformer() -> PixArtTransformer2DModel:
    """A transformer over the 64 latents, with cross-attention to the caption, about 3.9 million parameters.

    A U-Net of this size knows the places of a latent by its zero padding alone, and does not learn which object is
    where. A transformer has positions.
    """
    transformer = PixArtTransformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=1,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=6,
        num_attention_heads=HEADS,
        attention_head_dim=WIDTH // HEADS,
        cross_attention_dim=WIDTH,
        caption_channels=TEXT_WIDTH,
        interpolation_scale=1,
        use_additional_conditions=False,
    )
    nn.init.zeros_(transformer.proj_out.weight)  # as in DiT: the first prediction is the same everywhere
    return transformer


def new_text_encoder(tokenizer: T5Tokenizer) -> T5EncoderModel:
    """A bidirectional text encoder of about 0.8 million parameters.

    Its attention starts with a preference for places. With T5's own start the encoder begins as a bag of words.
    """
    encoder = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=TEXT_WIDTH,
            d_kv=32,
            d_ff=4 * TEXT_WIDTH,
            num_layers=3,
            num_heads=4,
            dropout_rate=0.0,
            relative_attention_max_distance=CONTEXT_LENGTH,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    nn.init.normal_(encoder.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight, std=1.0)
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
    vae: AutoencoderKL, transformer: PixArtTransformer2DModel, text_encoder: T5EncoderModel, tokenizer: T5Tokenizer,
    folder: Path,
) -> None:  # fmt: skip
    """Write the folder that `PixArtSigmaPipeline.from_pretrained` reads, in float16.

    Casts the given networks in place.
    """
    pipeline = PixArtSigmaPipeline(
        vae=vae,
        transformer=transformer,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        scheduler=new_scheduler(),
    )
    # A tokenizer remembers its last padding and truncation, and would save them.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    pipeline.to(dtype=torch.float16).save_pretrained(folder, safe_serialization=True)
