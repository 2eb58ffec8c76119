"""Comparisons of a teacher with diffusers' own pipeline of the same folder, which every family passes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sds_clip.models.losses.sds import sds_loss
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher

CAPTIONS = ["a red cube, left of a blue ball", "", "long " * 200]
TIMESTEPS = torch.tensor([3, 500, 999])


def load(folder: Path, **options: Any) -> Teacher:
    return load_teacher(str(folder), device="cpu", **{"precision": "float32", **options})


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network_calls(pipeline: Any, network: Any, **options: Any) -> list[tuple[dict[str, Any], Tensor]]:
    """What the pipeline gives the network, and gets of it, while it draws an image in three steps."""
    calls: list[tuple[dict[str, Any], Tensor]] = []

    def see(_: object, inputs: tuple[Any, ...], options: dict[str, Any], outputs: tuple[Tensor]) -> None:
        named = dict(zip(("sample", "timestep"), inputs, strict=False))
        calls.append(({**named, **options}, outputs[0]))

    handle = network.register_forward_hook(see, with_kwargs=True)
    pipeline(CAPTIONS[0], height=64, width=64, num_inference_steps=3, output_type="latent", **options)
    handle.remove()
    assert len(calls) == 3
    return calls


def check_noise(teacher: Teacher, captions: Tensor, noise: Tensor, own: Callable[[Tensor], Tensor]) -> None:
    """The teacher's noise, and its loss's gradient in the latents, are those of the pipeline's parts, `own`."""
    latents = randn(3, *teacher.latent_shape).requires_grad_()
    found = teacher.noise_pred(teacher.add_noise(latents, noise, TIMESTEPS), TIMESTEPS, captions)
    expected = own(latents)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    gradient, own_gradient = (
        torch.autograd.grad((each - noise).square().mean(), latents)[0] for each in (found, expected)
    )
    torch.testing.assert_close(gradient, own_gradient, rtol=1e-3, atol=1e-7)


def check_gradient(folder: Path) -> None:
    """The gradient of L_SDS in the latents is its finite difference, and no weight has one."""
    teacher = load(folder)
    teacher.denoiser.double()
    teacher.dtype = torch.float64
    captions, shape = teacher.encode_captions(["a red cube"]), (1, *teacher.latent_shape)
    noise, direction, t = randn(*shape, seed=1), randn(*shape, seed=2), torch.tensor([400])
    latents = randn(*shape).requires_grad_()

    def loss(latents: Tensor) -> Tensor:
        return sds_loss(latents, captions, t, noise, teacher=teacher).loss

    (gradient,) = torch.autograd.grad(loss(latents), latents)
    step = 1e-2
    with torch.no_grad():
        above, below = (loss(latents + sign * step * direction).double() for sign in (1, -1))
    expected = float((above - below) / (2 * step))
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=2e-3)
    assert all(weight.grad is None for weight in teacher.denoiser.parameters())
    assert float(gradient.abs().sum()) > 0


def check_latents(teacher: Teacher, pipeline: Any) -> None:
    pixels, config = randn(2, 3, 64, 64).clamp(-1, 1), pipeline.vae.config
    with torch.no_grad():
        mean = pipeline.vae.encode(pixels).latent_dist.mean
    expected = (mean - (config.shift_factor or 0.0)) * config.scaling_factor
    torch.testing.assert_close(teacher.encode_image(pixels), expected)
    assert teacher.encode_image(pixels).shape[1:] == teacher.latent_shape


def check_cache(folder: Path, tmp_path: Path, captions: list[str] = CAPTIONS) -> None:
    expected = load(folder, caption_cache=tmp_path).encode_captions(captions)
    again = load(folder, caption_cache=tmp_path)
    again.text_encoders.clear()
    assert torch.equal(again.encode_captions(captions), expected)


def check_condition(teacher: Teacher, width: int) -> None:
    """A condition's encoding has zeros in the place of the pooled vector, and gradients flow to its tokens."""
    tokens = randn(3, 5, width).requires_grad_()
    encoding = teacher.condition(tokens)
    assert encoding.shape == (3, 6, width)
    assert not encoding[:, 0].any()
    teacher.noise_pred(randn(3, *teacher.latent_shape), TIMESTEPS, encoding).sum().backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().sum() > 0


def check_low_precision(folder: Path, teacher: Teacher) -> None:
    low, noisy = load(folder, precision="bfloat16"), randn(3, *teacher.latent_shape)
    expected = teacher.noise_pred(noisy, TIMESTEPS, teacher.encode_captions(CAPTIONS))
    found = low.noise_pred(noisy, TIMESTEPS, low.encode_captions(CAPTIONS))
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.08)
