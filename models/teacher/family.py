"""What every kind of diffusion model that can teach has: the parts of its folder, and how its networks are called.

A caption's encoding is one tensor [s, e] for every family, so that caches, batches and losses need not know which one
it is. What else the denoiser needs of a caption is a further channel, or a row before the tokens'.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.shapes import Maps, PerSample, Timesteps, Tokens

SCOPE = (
    "A teacher is a Stable Diffusion 1.x, 2.x, XL or 3.x, a PixArt-alpha or PixArt-Sigma, or a FLUX.1-dev, each as the "
    "plain text-to-image model."
)


class Family(ABC):
    """A kind of diffusion model in diffusers' layout."""

    denoiser: ClassVar[str]
    """The folder of the denoising network."""
    classes: Mapping[str, str | None]
    """The parts of a folder and the class of each, without transformers' suffix Fast."""
    patch: ClassVar[int] = 1
    """Of which number the side of the latents is a multiple."""
    is_flow: ClassVar[bool] = False
    """Whether the denoiser predicts a flow, whose scheduler has sigmas in place of abar."""
    tokens: int = 77
    """How many tokens a caption has in the published models."""
    t5_tokens: int = 0
    """To how many tokens captions for a T5 are padded and cut. Those for a CLIP have as many as its tokenizer says."""
    empty_is_zero: bool = False
    """Whether no caption means an encoding of zeros, as in the training of Stable Diffusion XL."""
    version_note: str = ""
    """What the version of a teacher depends on beside its files."""

    @property
    def text_encoders(self) -> list[str]:
        return [part for part in self.classes if part.startswith("text_encoder")]

    @abstractmethod
    def check(self, config: Mapping[str, Any], kind: str) -> None:
        """Refuse a denoiser's configuration that is not supported. Raises TeacherError that begins with `kind`."""

    def latents(self, config: Mapping[str, Any]) -> tuple[int, Any]:
        """The channels of the latents, and their side as it is stated. Raises TeacherError."""
        return whole(config, "in_channels", 4), config.get("sample_size")

    def largest_side(self, config: Mapping[str, Any]) -> int | None:
        """The largest side of latents for which the denoiser has positions; None without a limit."""
        return None

    @abstractmethod
    def caption_width(self, config: Mapping[str, Any]) -> int:
        """The width of the caption embeddings that the denoiser needs. Raises TeacherError."""

    def pooled_width(self, config: Mapping[str, Any]) -> int:
        """The width of the one vector of a caption that the denoiser needs beside the embeddings of tokens."""
        return 0

    def made_widths(self, texts: Sequence[Any]) -> tuple[int, int]:
        """The widths of tokens and of the one vector that text encoders of these configurations make."""
        return texts[0].hidden_size, 0

    def caption_tokens(self, text_encoder: str, tokenizer: Any) -> int:
        """The number of tokens to which captions are padded and cut."""
        longest = int(tokenizer.model_max_length)
        return min(self.t5_tokens, longest) if self.classes[text_encoder] == "T5EncoderModel" else longest

    def text_dtype(self, text_encoder: str, dtype: torch.dtype) -> torch.dtype:
        """The format in which a text encoder, which sees a caption once, is held, given the denoiser's.

        The T5 of the published models has 4.7 billion weights: 19 GB in float32. In float16 it overflows.
        """
        if self.classes[text_encoder] != "T5EncoderModel":
            return torch.float32
        return torch.bfloat16 if dtype is torch.float16 else dtype

    def prepared(self, caption: str) -> str:
        """The caption as the tokenizers get it."""
        return caption

    @abstractmethod
    def embed(self, encoders: Sequence[Any], tokens: Sequence[Any]) -> Tokens:
        """Encode captions as each text encoder's tokenizer gave them.

        Its `input_ids` are [b, s], and its `attention_mask` is 1 for a token and 0 for padding.
        """

    def condition(self, tokens: Tokens) -> Float[Tensor, "b s2 e2"]:
        """Make tokens of `caption_width`, all of which get attention, into a caption's encoding."""
        return tokens

    @abstractmethod
    def output(
        self,
        denoiser: Any,
        noisy_latents: Maps,
        times: Timesteps | PerSample,
        captions: Tokens,
        *,
        resolution_px: int,
        guidance: float | None = None,
    ) -> Maps:
        """Predict the noise or the velocity.

        `guidance` is for denoisers that take its scale as an input.
        """


def whole(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Return a number of a denoiser's configuration, where the default is that of its class.

    Raises:
        TeacherError: it is no whole number above 0.
    """
    value = config.get(name, default)
    if type(value) is not int or value < 1:
        raise TeacherError(
            f"The denoiser's config.json has {value!r} as {name}, not a whole number above 0. Download it again."
        )
    return value


def with_pooled(pooled: Float[Tensor, "b p"], tokens: Tokens) -> Float[Tensor, "b s2 e"]:
    """Put the one vector of a caption before its tokens, filled with zeros to their width."""
    row = F.pad(pooled, (0, tokens.shape[-1] - pooled.shape[-1]))
    return torch.cat([row[:, None], tokens], dim=1)


def refuse_channels(kind: str, network: str, channels_in: int, channels_out: int) -> None:
    """Raise TeacherError that tells which input a network has beside the latents."""
    raise TeacherError(
        f"{kind} whose {network} takes {channels_in} channels and gives {channels_out}: it is made "
        "for inpainting, depth or similar. Use the plain text-to-image model."
    )
