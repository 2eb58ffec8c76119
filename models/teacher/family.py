"""The two kinds of diffusion models that can teach: what their folders contain, and how their networks are called.

A caption's encoding is one tensor [s, e] for every family, so that caches, batches and losses need not know which one
it is. What else the denoiser needs of a caption is a further channel.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.shapes import Maps, Timesteps, Tokens

SCOPE = (
    "A teacher is a U-Net latent diffusion model with one CLIP text encoder (Stable Diffusion 1.x and 2.x), or a "
    "PixArt-alpha or PixArt-Sigma."
)
_UNET_CONDITIONS = (
    "addition_embed_type",
    "class_embed_type",
    "num_class_embeds",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
"""Settings of a U-Net that needs more input than a noised latent, a timestep and a caption."""


class Family(ABC):
    """A kind of diffusion model in diffusers' layout."""

    denoiser: ClassVar[str]
    """The folder of the denoising network."""
    classes: ClassVar[Mapping[str, str | None]]
    """The parts of a folder and the class of each, without transformers' suffix Fast."""
    version_note: str = ""
    """What the version of a teacher depends on beside its files."""

    @abstractmethod
    def check(self, config: Mapping[str, Any], kind: str) -> None:
        """Refuse a denoiser's configuration that is not supported. Raises TeacherError that begins with `kind`."""

    @abstractmethod
    def caption_width(self, config: Mapping[str, Any]) -> int:
        """The width of the caption embeddings that the denoiser needs."""

    @abstractmethod
    def caption_tokens(self, tokenizer: Any) -> int:
        """The number of tokens to which captions are padded and cut."""

    def text_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The format in which the text encoder, which sees a caption once, is held, given the denoiser's."""
        return torch.float32

    def prepared(self, caption: str) -> str:
        """The caption as the tokenizer gets it."""
        return caption

    @abstractmethod
    def embed(self, text_encoder: Any, input_ids: Int[Tensor, "b s"], mask: Int[Tensor, "b s"]) -> Tokens:
        """Encode tokenized captions. `mask` is 1 for a token and 0 for padding."""

    def condition(self, tokens: Tokens) -> Float[Tensor, "b s e2"]:
        """Make tokens of `caption_width`, all of which get attention, into a caption's encoding."""
        return tokens

    @abstractmethod
    def output(
        self,
        denoiser: Any,
        noisy_latents: Maps,
        timesteps: Timesteps,
        captions: Tokens,
        *,
        resolution_px: int,
    ) -> Maps:
        """Predict the noise or the velocity."""


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x: a U-Net that attends to every token of a CLIP text encoder, padding included."""

    denoiser: ClassVar[str] = "unet"
    classes: ClassVar[Mapping[str, str | None]] = {
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "scheduler": None,
    }

    def check(self, config: Mapping[str, Any], kind: str) -> None:
        asked = [name for name in _UNET_CONDITIONS if config.get(name) is not None]
        if asked:
            raise TeacherError(f"{kind} whose U-Net needs more than a caption ({', '.join(asked)}). {SCOPE}")
        channels_in, channels_out = config.get("in_channels", 4), config.get("out_channels", 4)
        if channels_in != channels_out:
            raise TeacherError(
                f"{kind} whose U-Net takes {channels_in} channels and gives {channels_out}: it is made "
                "for inpainting, depth or similar. Use the plain text-to-image model."
            )

    def caption_width(self, config: Mapping[str, Any]) -> int:
        return config["cross_attention_dim"]  # type: ignore[no-any-return]  # a list if the blocks differ

    def caption_tokens(self, tokenizer: Any) -> int:
        return int(tokenizer.model_max_length)

    def embed(self, text_encoder: Any, input_ids: Tensor, mask: Tensor) -> Tensor:
        """The last hidden state, as in StableDiffusionPipeline."""
        masked = getattr(text_encoder.config, "use_attention_mask", False)
        hidden: Tensor = text_encoder(input_ids, attention_mask=mask if masked else None)[0]
        return hidden

    def output(
        self, denoiser: Any, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor, *, resolution_px: int
    ) -> Tensor:
        predicted: Tensor = denoiser(
            noisy_latents, timesteps, encoder_hidden_states=captions, return_dict=False
        )[0]
        return predicted


class PixArt(Family):
    """PixArt-alpha (arXiv 2310.00426) and -Sigma (2403.04692): a transformer that attends to the tokens of a T5.

    A caption's encoding has one channel more than T5's: 1 for a token and 0 for padding, which gets no attention.
    """

    denoiser: ClassVar[str] = "transformer"
    classes: ClassVar[Mapping[str, str | None]] = {
        "transformer": "PixArtTransformer2DModel",
        "text_encoder": "T5EncoderModel",
        "tokenizer": "T5Tokenizer",
        "scheduler": None,
    }

    def __init__(self, pipeline: str) -> None:
        """`pipeline` is the class that model_index.json names."""
        self._max_tokens = 120 if pipeline == "PixArtAlphaPipeline" else 300
        self.version_note = f"\ncaption tokens|{self._max_tokens}"

    def check(self, config: Mapping[str, Any], kind: str) -> None:
        channels_in = config.get("in_channels", 4)
        channels_out = config.get("out_channels", 8) or channels_in  # as in diffusers
        if channels_out not in (channels_in, 2 * channels_in):
            raise TeacherError(
                f"{kind} whose transformer takes {channels_in} channels and gives {channels_out}. It must give as "
                "many, or twice as many if it also predicts the variance. Use the plain text-to-image model."
            )

    def caption_width(self, config: Mapping[str, Any]) -> int:
        return int(config["caption_channels"] or config["cross_attention_dim"])

    def caption_tokens(self, tokenizer: Any) -> int:
        return min(self._max_tokens, int(tokenizer.model_max_length))

    def text_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The T5 of the published models has 4.7 billion weights: 19 GB in float32. In float16 it overflows."""
        return torch.bfloat16 if dtype is torch.float16 else dtype

    def prepared(self, caption: str) -> str:
        """Lower case, as in training. The pipeline's removal of markup (`clean_caption`) is left out."""
        return caption.lower().strip()

    def embed(self, text_encoder: Any, input_ids: Tensor, mask: Tensor) -> Tensor:
        hidden: Tensor = text_encoder(input_ids, attention_mask=mask)[0]
        return torch.cat([hidden, mask[..., None].to(hidden.dtype)], dim=-1)

    def condition(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens, torch.ones_like(tokens[..., :1])], dim=-1)

    def output(
        self, denoiser: Any, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor, *, resolution_px: int
    ) -> Tensor:
        rows = len(noisy_latents)
        size = torch.full((rows, 2), resolution_px, dtype=noisy_latents.dtype, device=noisy_latents.device)
        predicted: Tensor = denoiser(
            noisy_latents,
            encoder_hidden_states=captions[..., :-1],
            encoder_attention_mask=captions[..., -1],
            timestep=timesteps,
            # Only the models of 1024 pixels look at these.
            added_cond_kwargs={"resolution": size, "aspect_ratio": torch.ones_like(size[:, :1])},
            return_dict=False,
        )[0]
        return predicted[:, : noisy_latents.shape[1]]  # the variance's channels, if there are any, come after


def family_of(pipeline: str, parts: Mapping[str, Sequence[str]], kind: str) -> Family:
    """The family of a folder whose model_index.json names this pipeline and these parts.

    Raises:
        TeacherError: another kind of model, or a part that is missing or of another class.
    """
    family: Family = PixArt(pipeline) if "transformer" in parts else StableDiffusion()
    if "transformer" in parts and parts["transformer"][-1] != PixArt.classes["transformer"]:
        raise TeacherError(
            f"{kind}: its denoiser is a {parts['transformer'][-1]} (flow matching or DiT). {SCOPE}"
        )
    if "text_encoder_2" in parts:
        raise TeacherError(f"{kind} with several text encoders (SDXL's conditioning). {SCOPE}")
    for name, meant in family.classes.items():
        if name not in parts:
            raise TeacherError(f"{kind} without {name}. {SCOPE}")
        stated = str(parts[name][-1]).removesuffix("Fast")
        if meant not in (None, stated):
            raise TeacherError(f"{kind} whose {name} is a {stated}, not a {meant}. {SCOPE}")
    return family
