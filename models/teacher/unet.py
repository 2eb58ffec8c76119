"""The families whose denoiser is a U-Net: Stable Diffusion 1.x, 2.x and XL."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.family import SCOPE, Family, refuse_channels, whole, with_pooled

_UNET_CONDITIONS = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
"""Settings of a U-Net that needs more input than a noised latent, a timestep and a caption."""
_SIZES = 6  # of the image, of its crop's corner and of what is wanted


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x: a U-Net that attends to every token of a CLIP text encoder, padding included."""

    denoiser: ClassVar[str] = "unet"
    classes: Mapping[str, str | None] = {
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": None,
    }
    conditions: ClassVar[Mapping[str, str]] = {}
    """Those of the U-Net's conditions that belong to the family."""

    def check(self, config: Mapping[str, Any], kind: str) -> None:
        asked = [
            name for name in _UNET_CONDITIONS if config.get(name) not in (None, self.conditions.get(name))
        ]
        if asked:
            raise TeacherError(f"{kind} whose U-Net needs more than a caption ({', '.join(asked)}). {SCOPE}")
        channels_in, channels_out = config.get("in_channels", 4), config.get("out_channels", 4)
        if channels_in != channels_out:
            refuse_channels(kind, "U-Net", channels_in, channels_out)

    def caption_width(self, config: Mapping[str, Any]) -> int:
        return whole(config, "cross_attention_dim", 1280)

    def embed(self, encoders: Sequence[Any], tokens: Sequence[Any]) -> Tensor:
        """The last hidden state, as in StableDiffusionPipeline."""
        (encoder,), (given,) = encoders, tokens
        masked = getattr(encoder.config, "use_attention_mask", False)
        hidden: Tensor = encoder(given.input_ids, attention_mask=given.attention_mask if masked else None)[0]
        return hidden

    def output(
        self, denoiser: Any, noisy_latents: Tensor, times: Tensor, captions: Tensor, *, resolution_px: int,
        guidance: float | None = None,
    ) -> Tensor:  # fmt: skip
        predicted: Tensor = denoiser(noisy_latents, times, encoder_hidden_states=captions, return_dict=False)[
            0
        ]
        return predicted


class StableDiffusionXL(StableDiffusion):
    """Stable Diffusion XL (arXiv 2307.01952): two text encoders, a pooled vector of the second one, and sizes."""

    classes: Mapping[str, str | None] = {
        **StableDiffusion.classes,
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer_2": "CLIPTokenizer",
    }
    conditions: ClassVar[Mapping[str, str]] = {"addition_embed_type": "text_time"}

    def __init__(self, index: Mapping[str, Any]) -> None:
        """`index` is model_index.json."""
        self.empty_is_zero = bool(index.get("force_zeros_for_empty_prompt", True))
        self.version_note = f"\nno caption is zeros|{self.empty_is_zero}"

    def check(self, config: Mapping[str, Any], kind: str) -> None:
        super().check(config, kind)
        if config.get("addition_embed_type") != "text_time":
            raise TeacherError(f"{kind} whose U-Net takes no sizes: it is that of another family. {SCOPE}")

    def pooled_width(self, config: Mapping[str, Any]) -> int:
        sizes = _SIZES * whole(config, "addition_time_embed_dim")
        return whole(config, "projection_class_embeddings_input_dim") - sizes

    def made_widths(self, texts: Sequence[Any]) -> tuple[int, int]:
        return sum(text.hidden_size for text in texts), texts[1].projection_dim

    def embed(self, encoders: Sequence[Any], tokens: Sequence[Any]) -> Tensor:
        """The hidden states before the last layer, as in StableDiffusionXLPipeline."""
        encoded = [
            encoder(given.input_ids, output_hidden_states=True)
            for encoder, given in zip(encoders, tokens, strict=True)
        ]
        hidden = torch.cat([each.hidden_states[-2] for each in encoded], dim=-1)
        return with_pooled(encoded[1].text_embeds, hidden)

    def condition(self, tokens: Tensor) -> Tensor:
        return with_pooled(torch.zeros_like(tokens[:, 0]), tokens)

    def output(
        self, denoiser: Any, noisy_latents: Tensor, times: Tensor, captions: Tensor, *, resolution_px: int,
        guidance: float | None = None,
    ) -> Tensor:  # fmt: skip
        side = resolution_px
        sizes = torch.tensor([[side, side, 0, 0, side, side]] * len(noisy_latents)).to(noisy_latents)
        pooled = captions[:, 0, : self.pooled_width(denoiser.config)]
        predicted: Tensor = denoiser(
            noisy_latents,
            times,
            encoder_hidden_states=captions[:, 1:],
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes},
            return_dict=False,
        )[0]
        return predicted
