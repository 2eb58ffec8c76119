"""The families whose denoiser is a transformer: PixArt, and the flows Stable Diffusion 3.x and FLUX.1."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.family import Family, refuse_channels, whole, with_pooled


class PixArt(Family):
    """PixArt-alpha (arXiv 2310.00426) and -Sigma (2403.04692): a transformer that attends to the tokens of a T5.

    A caption's encoding has one channel more than T5's: 1 for a token and 0 for padding, which gets no attention.
    """

    denoiser: ClassVar[str] = "transformer"
    patch: ClassVar[int] = 2
    classes: Mapping[str, str | None] = {
        "transformer": "PixArtTransformer2DModel",
        "text_encoder": "T5EncoderModel",
        "tokenizer": "T5Tokenizer",
        "scheduler": None,
    }

    def __init__(self, pipeline: str) -> None:
        """`pipeline` is the class that model_index.json names."""
        self.tokens = self.t5_tokens = 120 if pipeline == "PixArtAlphaPipeline" else 300
        self.version_note = f"\ncaption tokens|{self.t5_tokens}"

    def check(self, config: Mapping[str, Any], kind: str) -> None:
        channels_in = config.get("in_channels", 4)
        channels_out = config.get("out_channels", 8) or channels_in  # as in diffusers
        if channels_out not in (channels_in, 2 * channels_in):
            raise TeacherError(
                f"{kind} whose transformer takes {channels_in} channels and gives {channels_out}. It must give as "
                "many, or twice as many if it also predicts the variance. Use the plain text-to-image model."
            )

    def caption_width(self, config: Mapping[str, Any]) -> int:
        from_t5 = config.get("caption_channels") is not None
        return whole(config, "caption_channels") if from_t5 else whole(config, "cross_attention_dim", 1152)

    def prepared(self, caption: str) -> str:
        """Lower case, as in training. The pipeline's removal of markup (`clean_caption`) is left out."""
        return caption.lower().strip()

    def embed(self, encoders: Sequence[Any], tokens: Sequence[Any]) -> Tensor:
        (encoder,), (given,) = encoders, tokens
        mask = given.attention_mask
        hidden: Tensor = encoder(given.input_ids, attention_mask=mask)[0]
        return torch.cat([hidden, mask[..., None].to(hidden.dtype)], dim=-1)

    def condition(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens, torch.ones_like(tokens[..., :1])], dim=-1)

    def output(
        self, denoiser: Any, noisy_latents: Tensor, times: Tensor, captions: Tensor, *, resolution_px: int,
        guidance: float | None = None,
    ) -> Tensor:  # fmt: skip
        rows = len(noisy_latents)
        size = torch.full((rows, 2), resolution_px, dtype=noisy_latents.dtype, device=noisy_latents.device)
        predicted: Tensor = denoiser(
            noisy_latents,
            encoder_hidden_states=captions[..., :-1],
            encoder_attention_mask=captions[..., -1],
            timestep=times,
            # Only the models of 1024 pixels look at these.
            added_cond_kwargs={"resolution": size, "aspect_ratio": torch.ones_like(size[:, :1])},
            return_dict=False,
        )[0]
        return predicted[:, : noisy_latents.shape[1]]  # the variance's channels, if there are any, come after


class _Flow(Family):
    """What the two flows share: a pooled vector, and joint attention to tokens without a mask."""

    denoiser: ClassVar[str] = "transformer"
    patch: ClassVar[int] = 2
    is_flow: ClassVar[bool] = True
    usual_pooled_width: ClassVar[int]

    def check(self, config: Mapping[str, Any], kind: str) -> None:
        channels_in = config.get("in_channels", 16)
        channels_out = config.get("out_channels") or channels_in
        if channels_in != channels_out:
            refuse_channels(kind, "transformer", channels_in, channels_out)

    def caption_width(self, config: Mapping[str, Any]) -> int:
        return whole(config, "joint_attention_dim", 4096)

    def pooled_width(self, config: Mapping[str, Any]) -> int:
        return whole(config, "pooled_projection_dim", self.usual_pooled_width)

    def condition(self, tokens: Tensor) -> Tensor:
        return with_pooled(torch.zeros_like(tokens[:, 0]), tokens)


class StableDiffusion3(_Flow):
    """Stable Diffusion 3.x (arXiv 2403.03206): two CLIP text encoders, and a T5, whose tokens come after theirs.

    A folder may lack the T5. Its tokens are then zeros, as in diffusers' pipeline.
    """

    tokens, t5_tokens = 77 + 256, 256
    usual_pooled_width: ClassVar[int] = 2048

    def __init__(self, *, t5: bool) -> None:
        of_t5 = {"text_encoder_3": "T5EncoderModel", "tokenizer_3": "T5Tokenizer"}
        self.classes = {
            "transformer": "SD3Transformer2DModel",
            "text_encoder": "CLIPTextModelWithProjection",
            "text_encoder_2": "CLIPTextModelWithProjection",
            "tokenizer": "CLIPTokenizer",
            "tokenizer_2": "CLIPTokenizer",
            **(of_t5 if t5 else {}),
            "scheduler": "FlowMatchEulerDiscreteScheduler",
        }
        self._width = 0

    def check(self, config: Mapping[str, Any], kind: str) -> None:
        super().check(config, kind)
        self._width = self.caption_width(config)

    def latents(self, config: Mapping[str, Any]) -> tuple[int, Any]:
        return whole(config, "in_channels", 16), config.get("sample_size", 128)

    def largest_side(self, config: Mapping[str, Any]) -> int | None:
        return whole(config, "pos_embed_max_size", 96) * whole(config, "patch_size", 2)

    def made_widths(self, texts: Sequence[Any]) -> tuple[int, int]:
        clips, t5 = texts[:2], texts[2:]
        least = t5[0].hidden_size if t5 else self._width
        return max(least, sum(clip.hidden_size for clip in clips)), sum(clip.projection_dim for clip in clips)

    def embed(self, encoders: Sequence[Any], tokens: Sequence[Any]) -> Tensor:
        """As in StableDiffusion3Pipeline."""
        clips = [
            encoder(given.input_ids, output_hidden_states=True)
            for encoder, given in zip(encoders[:2], tokens[:2], strict=True)
        ]
        hidden = torch.cat([each.hidden_states[-2] for each in clips], dim=-1)
        hidden = F.pad(hidden, (0, self._width - hidden.shape[-1]))
        if len(encoders) == 3:
            of_t5 = encoders[2](tokens[2].input_ids)[0]
        else:
            of_t5 = hidden.new_zeros(len(hidden), self.t5_tokens, self._width)
        pooled = torch.cat([each.text_embeds for each in clips], dim=-1)
        return with_pooled(pooled, torch.cat([hidden, of_t5], dim=1))

    def output(
        self, denoiser: Any, noisy_latents: Tensor, times: Tensor, captions: Tensor, *, resolution_px: int,
        guidance: float | None = None,
    ) -> Tensor:  # fmt: skip
        predicted: Tensor = denoiser(
            hidden_states=noisy_latents,
            timestep=times,
            encoder_hidden_states=captions[:, 1:],
            pooled_projections=captions[:, 0, : self.pooled_width(denoiser.config)],
            return_dict=False,
        )[0]
        return predicted


class Flux(_Flow):
    """FLUX.1-dev: tokens of a T5, a pooled vector of a CLIP, latents in packs of 2 x 2, guidance as an input."""

    tokens = t5_tokens = 512
    usual_pooled_width: ClassVar[int] = 768
    classes: Mapping[str, str | None] = {
        "transformer": "FluxTransformer2DModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5Tokenizer",
        "scheduler": "FlowMatchEulerDiscreteScheduler",
    }

    def latents(self, config: Mapping[str, Any]) -> tuple[int, Any]:
        """Its configuration has no side; the pipeline's is 128, for images of 1024 pixels."""
        return whole(config, "in_channels", 64) // 4, config.get("sample_size", 128)

    def made_widths(self, texts: Sequence[Any]) -> tuple[int, int]:
        return texts[1].hidden_size, texts[0].hidden_size

    def embed(self, encoders: Sequence[Any], tokens: Sequence[Any]) -> Tensor:
        """As in FluxPipeline."""
        pooled = encoders[0](tokens[0].input_ids).pooler_output
        return with_pooled(pooled, encoders[1](tokens[1].input_ids)[0])

    def output(
        self, denoiser: Any, noisy_latents: Tensor, times: Tensor, captions: Tensor, *, resolution_px: int,
        guidance: float | None = None,
    ) -> Tensor:  # fmt: skip
        packed = F.pixel_unshuffle(noisy_latents, 2)
        rows, columns = packed.shape[2:]
        grid = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns))
        scale = 1.0 if guidance is None else guidance
        predicted: Tensor = denoiser(
            hidden_states=packed.flatten(2).transpose(1, 2),
            timestep=times / 1000,
            guidance=noisy_latents.new_full((len(packed),), scale)
            if denoiser.config.guidance_embeds
            else None,
            pooled_projections=captions[:, 0, : self.pooled_width(denoiser.config)],
            encoder_hidden_states=captions[:, 1:],
            txt_ids=noisy_latents.new_zeros(captions.shape[1] - 1, 3),
            img_ids=grid.to(noisy_latents),
            return_dict=False,
        )[0]
        return F.pixel_shuffle(predicted.transpose(1, 2).reshape(len(packed), -1, rows, columns), 2)
