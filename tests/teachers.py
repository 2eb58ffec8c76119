"""Builders of small text-to-image diffusion models on disk, in diffusers' layout, drawn from a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

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
    return _save(folder, StableDiffusionPipeline(
        vae=_vae(latent_size, latent_channels),
        unet=_unet(latent_size, latent_channels, cross_attention_dim, unet or {}),
        text_encoder=_text_encoder(tokenizer, text_width or cross_attention_dim),
        tokenizer=tokenizer,
        scheduler=_scheduler(prediction_type, scheduler or {}),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ))  # fmt: skip


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
    return _save(folder, pipeline(
        vae=_vae(latent_size, latent_channels),
        transformer=_transformer(latent_size, latent_channels, transformer or {}),
        text_encoder=_t5(tokenizer),
        tokenizer=tokenizer,
        scheduler=_scheduler(prediction_type, {}),
    ))  # fmt: skip


def save_sdxl_teacher(folder: Path, *, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """Save a pipeline with two text encoders of widths 16 and 24; the second one's vector has 20 numbers."""
    torch.manual_seed(seed)
    tokenizer, other = byte_tokenizer(), byte_tokenizer()
    other.pad_token = "!"  # as in the published folders
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "transformer_layers_per_block": 2,
    }
    return _save(folder, StableDiffusionXLPipeline(
        vae=_vae(8, 4),
        unet=_unet(8, 4, 40, {**added, "projection_class_embeddings_input_dim": 6 * 8 + 20}),
        text_encoder=_text_encoder(tokenizer, 16),
        text_encoder_2=_text_encoder(other, 24, projection=20),
        tokenizer=tokenizer,
        tokenizer_2=other,
        scheduler=_scheduler(prediction_type, {}),
        add_watermarker=False,
    ))  # fmt: skip


def save_sd3_teacher(folder: Path, *, t5: bool = True, seed: int = 0, **scheduler: Any) -> Path:
    """Save a pipeline whose CLIPs are narrower than its T5, as those of the published models."""
    torch.manual_seed(seed)
    tokenizer, letters = byte_tokenizer(), letter_tokenizer()
    return _save(folder, StableDiffusion3Pipeline(
        vae=_vae(8, 16, shift_factor=0.0609),
        transformer=SD3Transformer2DModel(
            sample_size=8, num_layers=2, attention_head_dim=8, num_attention_heads=2, joint_attention_dim=32,
            caption_projection_dim=16, pooled_projection_dim=20, pos_embed_max_size=12,
        ),
        text_encoder=_text_encoder(tokenizer, 12, projection=8),
        text_encoder_2=_text_encoder(tokenizer, 16, projection=12),
        text_encoder_3=_t5(letters) if t5 else None,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        tokenizer_3=letters if t5 else None,
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
    ))  # fmt: skip


def save_flux_teacher(folder: Path, *, guidance_embeds: bool = True, seed: int = 0) -> Path:
    """Save a pipeline whose folder states a side of 8, and not the 128 of the published model."""
    torch.manual_seed(seed)
    tokenizer, letters = byte_tokenizer(), letter_tokenizer()
    shift = {"use_dynamic_shifting": True, "base_image_seq_len": 4, "max_image_seq_len": 64}
    _save(folder, FluxPipeline(
        vae=_vae(8, 4, shift_factor=0.1159),
        transformer=FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=32, pooled_projection_dim=12, guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
        text_encoder=_text_encoder(tokenizer, 12),
        text_encoder_2=_t5(letters),
        tokenizer=tokenizer,
        tokenizer_2=letters,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, **shift),
    ))  # fmt: skip
    config = folder / "transformer/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 8}))
    return folder


def _save(folder: Path, pipeline: Any) -> Path:
    pipeline.set_progress_bar_config(disable=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def _t5(tokenizer: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    )


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


def _vae(latent_size: int, latent_channels: int, **settings: Any) -> AutoencoderKL:
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
        **settings,
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


def _text_encoder(
    tokenizer: CLIPTokenizer, width: int, projection: int | None = None
) -> CLIPTextModel | CLIPTextModelWithProjection:
    kind = CLIPTextModelWithProjection if projection else CLIPTextModel
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=projection or width,
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
