"""Builders of small text-to-image diffusion models on disk, in diffusers' layout, drawn from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

CONTEXT_LENGTH = 48


def save_sd_teacher(
    folder: Path,
    *,
    prediction_type: str = "epsilon",
    latent_size: int = 8,
    latent_channels: int = 4,
    cross_attention_dim: int = 32,
    text_width: int | None = None,
    seed: int = 0,
    unet: dict[str, Any] | None = None,
    scheduler: dict[str, Any] | None = None,
) -> Path:
    """Save a pipeline whose VAE takes images of 8 times `latent_size` pixels to latents.

    `unet` and `scheduler` override settings of those two parts.
    """
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    pipeline = StableDiffusionPipeline(
        vae=_vae(latent_size, latent_channels),
        unet=_unet(latent_size, latent_channels, cross_attention_dim, unet or {}),
        text_encoder=_text_encoder(tokenizer, text_width or cross_attention_dim),
        tokenizer=tokenizer,
        scheduler=_scheduler(prediction_type, scheduler or {}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def save_pixart_teacher(
    folder: Path,
    *,
    pipeline: type[PixArtAlphaPipeline | PixArtSigmaPipeline] = PixArtAlphaPipeline,
    prediction_type: str = "epsilon",
    latent_size: int = 8,
    latent_channels: int = 4,
    seed: int = 0,
    transformer: dict[str, Any] | None = None,
) -> Path:
    """Save a pipeline whose transformer sees patches of 2 x 2 latents. `transformer` overrides its settings."""
    torch.manual_seed(seed)
    tokenizer = letter_tokenizer()
    parts = pipeline(
        vae=_vae(latent_size, latent_channels),
        transformer=_transformer(latent_size, latent_channels, transformer or {}),
        text_encoder=T5EncoderModel(
            T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
        ),
        tokenizer=tokenizer,
        scheduler=_scheduler(prediction_type, {}),
    )
    parts.set_progress_bar_config(disable=True)
    parts.save_pretrained(folder, safe_serialization=True)
    return folder


def noise_by_scheduler(scheduler: DDIMScheduler, output: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The noise that a network's output means, by the clean latents that diffusers' scheduler makes of it."""
    scheduler.set_timesteps(1000)
    found = []
    for row, t in enumerate(timesteps):
        clean = scheduler.step(output[row : row + 1], t, noisy[row : row + 1]).pred_original_sample[0]
        abar = scheduler.alphas_cumprod[t]
        found.append((noisy[row] - abar.sqrt() * clean) / (1 - abar).sqrt())
    return torch.stack(found)


def letter_tokenizer() -> T5Tokenizer:
    """T5's own tokenizer with a token for each letter."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,"
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *letters]
    return T5Tokenizer([(piece, 0.0) for piece in pieces], extra_ids=0, model_max_length=512)


def _transformer(
    latent_size: int, latent_channels: int, settings: dict[str, Any]
) -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        **{
            "sample_size": latent_size,
            "in_channels": latent_channels,
            "out_channels": 2 * latent_channels,
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "cross_attention_dim": 24,
            "num_layers": 2,
            "caption_channels": 32,
            "patch_size": 2,
            **settings,
        }
    )


def byte_tokenizer() -> CLIPTokenizer:
    """CLIP's own tokenizer without merges: a token for each byte, and for each byte that ends a word."""
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    entries = [*alphabet, *(letter + "</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {entry: index for index, entry in enumerate(entries)}
    return CLIPTokenizer(vocabulary, [], model_max_length=CONTEXT_LENGTH)


def _vae(latent_size: int, latent_channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=latent_channels,
        norm_num_groups=4,
        sample_size=8 * latent_size,
        mid_block_add_attention=False,
    )


def _unet(
    latent_size: int, latent_channels: int, cross_attention_dim: int, settings: dict[str, Any]
) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": latent_size,
            "in_channels": latent_channels,
            "out_channels": latent_channels,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "cross_attention_dim": cross_attention_dim,
            "attention_head_dim": 4,
            "norm_num_groups": 8,
            **settings,
        }
    )


def _text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT_LENGTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _scheduler(prediction_type: str, settings: dict[str, Any]) -> DDIMScheduler:
    return DDIMScheduler(
        **{
            "num_train_timesteps": 1000,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "beta_schedule": "scaled_linear",
            "prediction_type": prediction_type,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
            **settings,
        }
    )
