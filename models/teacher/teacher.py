"""A loaded teacher: its U-Net with all that belongs to it, frozen, differentiable in its input alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.teacher import noise as arithmetic
from models.teacher.caption_cache import CaptionCache
from models.teacher.errors import TeacherError
from models.teacher.gradient_scale import with_scaled_gradient
from models.teacher.noise import PredictionType

_CAPTIONS_AT_ONCE = 8
_PIXELS_AT_ONCE = 4 * 512**2
"""A VAE's first layers hold about 2 KiB a pixel in float32: half a GiB an image of 512, too much for a CLIP's batch."""
UNCONDITIONAL = ""
"""The caption that stands for none, as in the training of Stable Diffusion."""


@dataclass(eq=False)
class Teacher:
    """One diffusion model in memory; `models.teacher.load` makes it.

    The U-Net computes in `dtype`; the text encoder and the VAE, which see a caption or an image once, in float32.
    """

    reference: str
    """How it was named, normalised."""
    version: str
    """sha256 over the stored U-Net, text encoder, tokenizer and scheduler."""
    unet: Any
    text_encoder: Any
    tokenizer: Any
    vae: Any | None
    prediction_type: PredictionType
    alphas_cumprod: Float[Tensor, "t"]
    """abar of every timestep, float32 on the device."""
    latent_shape: tuple[int, int, int]
    resolution_px: int
    """Side of the images that the VAE turns into latents of `latent_shape`."""
    device: torch.device
    dtype: torch.dtype
    guidance: float | None = None
    """Classifier-free guidance's scale; None: the prediction under the caption as it is."""
    caption_cache: CaptionCache | None = None
    vae_version: str | None = None
    """sha256 over the stored VAE, where it is loaded; apart, since captions and predictions do without it."""
    _tokenizing: Lock = field(default_factory=Lock, init=False, repr=False)
    """A tokenizer of transformers refuses a second thread: padding is its state."""

    def __post_init__(self) -> None:
        for part in (self.unet, self.text_encoder, self.vae):
            if part is not None:
                part.eval().requires_grad_(False)

    @property
    def timesteps(self) -> int:
        """How many noise levels the model was trained on; a timestep is in [0, timesteps)."""
        return len(self.alphas_cumprod)

    @property
    def predicts_velocity(self) -> bool:
        """Whether the U-Net puts out the velocity and not the noise."""
        return self.prediction_type == "v_prediction"

    @property
    def has_vae(self) -> bool:
        """Whether the VAE is loaded."""
        return self.vae is not None

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> Float[Tensor, "b s e"]:
        """Embed captions as StableDiffusionPipeline does: padded and cut to the tokenizer's length, last hidden state.

        A caption's embedding does not depend on its company, so a cache changes no result. No gradient.
        """
        known: dict[str, Tensor] = {}
        missing = list(dict.fromkeys(captions))
        if self.caption_cache is not None:
            found = self.caption_cache.get_many(self.version, missing, self.dtype)
            known = {
                caption: embedding
                for caption, embedding in zip(missing, found, strict=True)
                if embedding is not None
            }
            missing = [caption for caption in missing if caption not in known]
        for start in range(0, len(missing), _CAPTIONS_AT_ONCE):
            chunk = missing[start : start + _CAPTIONS_AT_ONCE]
            embeddings = self._embed(chunk)
            known |= zip(chunk, embeddings, strict=True)
            if self.caption_cache is not None:
                self.caption_cache.put_many(self.version, chunk, embeddings)
        if not captions:
            return self._embed([UNCONDITIONAL])[:0]
        return torch.stack([known[caption].to(self.device) for caption in captions])

    def _embed(self, captions: list[str]) -> Float[Tensor, "b s e"]:
        # Filled up to one shape: matrix products of another shape may round a row otherwise.
        filled = captions + [UNCONDITIONAL] * (_CAPTIONS_AT_ONCE - len(captions))
        with self._tokenizing:
            tokens = self.tokenizer(
                filled,
                padding="max_length",
                max_length=self.tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
        masked = getattr(self.text_encoder.config, "use_attention_mask", False)
        with self._own_precision():
            hidden: Tensor = self.text_encoder(
                tokens.input_ids.to(self.device),
                attention_mask=tokens.attention_mask.to(self.device) if masked else None,
            )[0]
        return hidden[: len(captions)].to(self.dtype)

    def add_noise(
        self,
        latents: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, "b"],
    ) -> Float[Tensor, "b c h w"]:
        """z_t of z_0 by the model's own schedule; see `models.teacher.noise`."""
        return arithmetic.add_noise(latents, noise, self.alphas_cumprod[timesteps])

    def noise_pred(
        self,
        noisy_latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, "b"],
        captions: Float[Tensor, "b s e"],
    ) -> Float[Tensor, "b c h w"]:
        """eps_hat = eps_theta(z_t, t, c) in float32; with guidance s, eps_u + s (eps_c - eps_u) (arXiv 2207.12598).

        Gradients flow to `noisy_latents` where they ask for them, never to weights.
        """
        return self._guided(self._epsilon, noisy_latents, timesteps, captions)

    def velocity_pred(
        self,
        noisy_latents: Float[Tensor, "b c h w"],
        timesteps: Int[Tensor, "b"],
        captions: Float[Tensor, "b s e"],
    ) -> Float[Tensor, "b c h w"]:
        """v_hat of a teacher whose `prediction_type` is v_prediction, in float32: the U-Net's own output.

        Guidance is that of `noise_pred`, and gradients flow as there.
        """
        return self._guided(self._output, noisy_latents, timesteps, captions)

    def _guided(
        self,
        predict: Callable[[Tensor, Tensor, Tensor], Tensor],
        noisy_latents: Tensor,
        timesteps: Tensor,
        captions: Tensor,
    ) -> Tensor:
        if self.guidance is None:
            return predict(noisy_latents, timesteps, captions)
        both = predict(
            noisy_latents.repeat(2, 1, 1, 1),
            timesteps.repeat(2),
            torch.cat([self._unconditional.expand_as(captions), captions]),
        )
        without, under = both.chunk(2)
        return without + self.guidance * (under - without)

    def _epsilon(self, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor) -> Tensor:
        output = self._output(noisy_latents, timesteps, captions)
        return arithmetic.epsilon_of(
            output, noisy_latents, self.alphas_cumprod[timesteps], self.prediction_type
        )

    def _output(self, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor) -> Tensor:
        def unet(noisy_latents: Tensor) -> Tensor:
            output: Tensor = self.unet(
                noisy_latents.to(self.dtype),
                timesteps,
                encoder_hidden_states=captions.to(self.dtype),
                return_dict=False,
            )[0]
            return output.float()

        scaled = self.dtype is torch.float16
        with self._own_precision():
            return with_scaled_gradient(unet, noisy_latents) if scaled else unet(noisy_latents)

    @cached_property
    def _unconditional(self) -> Float[Tensor, "1 s e"]:
        return self.encode_captions([UNCONDITIONAL])

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "b 3 y x"]) -> Float[Tensor, "b c h w"]:
        """The latents z_0 of images in [-1, 1], from the VAE's posterior mode, in float32. No gradient.

        z_0 = (mode - shift_factor) * scaling_factor, the shift only where the VAE states one. Where it states
        latents_mean and latents_std, a number a channel, z_0 = (mode - latents_mean) * scaling_factor / latents_std.

        Raises:
            TeacherError: the VAE is not loaded, or the images are not `resolution_px` on a side.
        """
        if self.vae is None:
            raise TeacherError(f"The VAE of {self.reference} is not loaded; load the teacher with vae=True.")
        if pixels.shape[2:] != (self.resolution_px, self.resolution_px):
            height, width = pixels.shape[2:]
            raise TeacherError(
                f"{self.reference} takes images of {self.resolution_px} x {self.resolution_px} pixels, not "
                f"{height} x {width}; preprocess them with models.teacher.pixels."
            )
        chunks = torch.split(pixels, max(1, _PIXELS_AT_ONCE // self.resolution_px**2))
        with self._own_precision():
            mode = torch.cat([self.vae.encode(chunk.to(self.device)).latent_dist.mode() for chunk in chunks])
        config = self.vae.config
        shift: float | Tensor = config.get("shift_factor") or 0.0
        std: float | Tensor = 1.0
        if config.get("latents_mean") is not None:
            shift, std = (
                torch.tensor(config[name], device=mode.device)[:, None, None]
                for name in ("latents_mean", "latents_std")
            )
        latents: Tensor = (mode - shift) * config.scaling_factor / std
        return latents

    def enable_activation_checkpointing(self) -> None:
        """Recompute the U-Net's activations in the backward pass in place of keeping them; values stay the same.

        diffusers asks whether gradients are enabled, not whether the U-Net trains, so it stays in eval.
        """
        self.unet.enable_gradient_checkpointing()

    def _own_precision(self) -> torch.autocast:
        """A caller's autocast stays out: every part computes in the format that it is held in."""
        return torch.autocast(self.device.type, enabled=False)
