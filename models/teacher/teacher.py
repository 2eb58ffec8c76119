"""A loaded teacher: its denoiser and all that belongs to it, frozen, and differentiable in its input only."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models import noise as arithmetic
from sds_clip.models.errors import TeacherError
from sds_clip.models.noise import Levels, PredictionType
from sds_clip.models.shapes import Maps, Timesteps, Tokens
from sds_clip.models.teacher.caption_cache import CaptionCache
from sds_clip.models.teacher.family import Family
from sds_clip.models.teacher.gradient_scale import with_scaled_gradient

CAPTIONS_AT_ONCE = 8  # always this many, see _embed
# A VAE's first layers hold about 2 KiB per pixel in float32: half a GiB for one image of 512 x 512. A CLIP's
# whole batch would be too much.
_PIXELS_AT_ONCE = 4 * 512**2
# On a CPU more are no faster, and a run that is to stop waits until they end.
_CPU_PIXELS_AT_ONCE = 512**2
UNCONDITIONAL = ""
"""The caption that means no caption, as in the training of Stable Diffusion."""


@dataclass(eq=False)
class Teacher:
    """One diffusion model in memory, made by `sds_clip.models.teacher.load`.

    The denoiser computes in `dtype`, the VAE, which sees an image once, in float32, and the text encoders as their
    family says.
    """

    reference: str
    """The normalised reference it was loaded by."""
    version: str
    """sha256 over the stored denoiser, text encoders, tokenizers and scheduler."""
    family: Family
    denoiser: Any
    text_encoders: dict[str, Any]
    tokenizers: dict[str, Any]
    """By the text encoder that each belongs to."""
    vae: Any | None
    prediction_type: PredictionType
    levels: Levels
    """s and n of every timestep, on the device."""
    latent_shape: tuple[int, int, int]
    resolution_px: int
    """The side of the images that the VAE encodes into latents of `latent_shape`."""
    device: torch.device
    dtype: torch.dtype
    guidance: float | None = None
    """The scale of classifier-free guidance. None means the plain prediction under the caption.

    A FLUX.1-dev, to which guidance was distilled, has the scale as an input, and None means 1."""
    caption_cache: CaptionCache | None = None
    load_text_encoders: Callable[[], dict[str, Any]] | None = None
    offload: bool = False
    """Whether text encoders and VAE wait in the host's memory, and are on the device only while they encode. The
    denoiser moves there when it is first needed, and stays."""
    vae_version: str | None = None
    """sha256 over the stored VAE if it is loaded; separate, since captions and predictions do without it."""
    _tokenizing: Lock = field(default_factory=Lock, init=False, repr=False)
    """transformers' tokenizers keep padding as state, and so refuse a second thread."""

    def __post_init__(self) -> None:
        for part in (self.denoiser, *self.text_encoders.values(), self.vae):
            if part is not None:
                part.eval().requires_grad_(False)

    @property
    def timesteps(self) -> int:
        """The number of noise levels that the model was trained on. A timestep is in [0, timesteps)."""
        return len(self.levels)

    @property
    def predicts_velocity(self) -> bool:
        """Whether the denoiser's output is the velocity and not the noise."""
        return self.prediction_type == self.levels.velocity

    @property
    def images_at_once(self) -> int:
        """How many images the VAE encodes together."""
        pixels = _CPU_PIXELS_AT_ONCE if self.device.type == "cpu" else _PIXELS_AT_ONCE
        return max(1, pixels // self.resolution_px**2)

    @property
    def caption_width(self) -> int:
        """The width of a token, as the denoiser needs it."""
        return self.family.caption_width(self.denoiser.config)

    def condition(self, tokens: Tokens) -> Float[Tensor, "b s2 e2"]:
        """Put tokens of `caption_width` where a caption's tokens stand. Gradients flow to them."""
        return self.family.condition(tokens)

    @property
    def text_bytes(self) -> int:
        """The memory of the text encoders."""
        return sum(value.nbytes for encoder in self.text_encoders.values() for value in encoder.parameters())

    def unload_text_encoders(self) -> None:
        """Free the memory of the text encoders. A caption that is in no cache loads them again."""
        self.text_encoders.clear()
        gc.collect()
        self._return_memory()

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> Tokens:
        """Embed captions as the family's pipeline of diffusers does, without gradients.

        They are padded and cut to the family's length. A caption's embedding does not depend on the other captions,
        so a cache changes no result.
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
        for start in range(0, len(missing), CAPTIONS_AT_ONCE):
            chunk = missing[start : start + CAPTIONS_AT_ONCE]
            embeddings = self._embed(chunk)
            known |= zip(chunk, embeddings, strict=True)
            if self.caption_cache is not None:
                self.caption_cache.put_many(self.version, chunk, embeddings)
        if not captions:
            return self._embed([UNCONDITIONAL])[:0]
        return torch.stack([known[caption].to(self.device) for caption in captions])

    def _embed(self, captions: list[str]) -> Tokens:
        # Padded to a fixed shape: matrix products of another shape may round a row differently.
        filled = captions + [UNCONDITIONAL] * (CAPTIONS_AT_ONCE - len(captions))
        with self._tokenizing:
            if not self.text_encoders and self.load_text_encoders is not None:
                self.text_encoders = self.load_text_encoders()
            tokens = [
                tokenizer(
                    [self.family.prepared(caption) for caption in filled],
                    padding="max_length",
                    max_length=self.family.caption_tokens(part, tokenizer),
                    truncation=True,
                    return_tensors="pt",
                ).to(self.device)
                for part, tokenizer in self.tokenizers.items()
            ]
        with self._on_device(*self.text_encoders.values()), self._own_precision():
            embeddings = self.family.embed([*self.text_encoders.values()], tokens)
        if self.family.empty_is_zero:
            embeddings[torch.tensor([caption == UNCONDITIONAL for caption in filled])] = 0
        return embeddings[: len(captions)].to(self.dtype)

    def add_noise(self, latents: Maps, noise: Maps, timesteps: Timesteps) -> Maps:
        return arithmetic.add_noise(latents, noise, self.levels[timesteps])

    def noise_pred(self, noisy_latents: Maps, timesteps: Timesteps, captions: Tokens) -> Maps:
        """Return eps_hat = eps_theta(z_t, t, c) in float32.

        With guidance s it is eps_u + s (eps_c - eps_u) (arXiv 2207.12598). Gradients flow to `noisy_latents` and
        `captions` if they require them, never to weights.
        """
        return self._guided(self._epsilon, noisy_latents, timesteps, captions)

    def velocity_pred(self, noisy_latents: Maps, timesteps: Timesteps, captions: Tokens) -> Maps:
        """Return v_hat in float32, the denoiser's own output, if it `predicts_velocity`.

        Guidance and gradients are as in `noise_pred`.
        """
        return self._guided(self._output, noisy_latents, timesteps, captions)

    def _guided(
        self,
        predict: Callable[[Tensor, Tensor, Tensor], Tensor],
        noisy_latents: Tensor,
        timesteps: Tensor,
        captions: Tensor,
    ) -> Tensor:
        if self.guidance is None or self.denoiser.config.get("guidance_embeds"):
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
        levels = self.levels[timesteps]
        return arithmetic.convert(output, noisy_latents, levels, self.prediction_type, "epsilon")

    def _output(self, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor) -> Tensor:
        if self.offload and self.denoiser.device.type != self.device.type:
            self.denoiser.to(self.device)
        times = timesteps
        if self.family.is_flow:  # it knows a level by its noise, which shifts move
            times = self.levels[timesteps].noise.flatten() * self.timesteps

        def denoise(noisy_latents: Tensor, captions: Tensor) -> Tensor:
            return self.family.output(
                self.denoiser,
                noisy_latents.to(self.dtype),
                times,
                captions.to(self.dtype),
                resolution_px=self.resolution_px,
                guidance=self.guidance,
            ).float()

        scaled = self.dtype is torch.float16
        with self._own_precision():
            if scaled:
                return with_scaled_gradient(denoise, noisy_latents, captions)
            return denoise(noisy_latents, captions)

    @cached_property
    def _unconditional(self) -> Float[Tensor, "1 s e"]:
        return self.encode_captions([UNCONDITIONAL])

    @torch.no_grad()
    def encode_image(self, pixels: Float[Tensor, "b 3 y x"]) -> Maps:
        """Return the latents z_0 of images in [-1, 1], from the mode of the VAE's posterior, in float32.

        z_0 = (mode - shift_factor) * scaling_factor, with the shift only if the VAE states one. If it states
        latents_mean and latents_std, one number per channel,
        z_0 = (mode - latents_mean) * scaling_factor / latents_std. There are no gradients.

        Raises:
            TeacherError: the VAE is not loaded, or the images are not `resolution_px` on a side.
        """
        if self.vae is None:
            raise TeacherError(f"The VAE of {self.reference} is not loaded; load the teacher with vae=True.")
        if pixels.shape[2:] != (self.resolution_px, self.resolution_px):
            height, width = pixels.shape[2:]
            raise TeacherError(
                f"{self.reference} takes images of {self.resolution_px} x {self.resolution_px} pixels, not "
                f"{height} x {width}; preprocess them with sds_clip.models.teacher.pixels."
            )
        chunks = torch.split(pixels, self.images_at_once)
        with self._on_device(self.vae), self._own_precision():
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
        """Recompute the denoiser's activations in the backward pass. Values stay the same.

        diffusers checks whether gradients are enabled, not whether the network is in train mode, so it stays in
        eval.
        """
        self.denoiser.enable_gradient_checkpointing()

    @contextmanager
    def _on_device(self, *parts: Any) -> Iterator[None]:
        """Within the block, these parts are on the device."""
        if not self.offload:
            yield
            return
        try:
            for part in parts:
                part.to(self.device)
            yield
        finally:
            for part in parts:
                part.to("cpu")
            self._return_memory()

    def _return_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _own_precision(self) -> torch.autocast:
        """Disable a caller's autocast: every part computes in the format that it is held in."""
        return torch.autocast(self.device.type, enabled=False)
