"""The diffusion score d(x, c): how badly a teacher denoises an image's latents under a caption.

    d(x, c) = E_{t, eps} || eps_theta(z_t, t, c) - eps ||^2, the mean over a latent's elements

or the same for the velocity, v = s eps - n z_0 or a flow's eps - z_0, which gives high noise more weight.
The caption with the smallest d wins. Everything that is compared shares its timesteps and noise (arXiv
2303.16203): most of the error's variance comes from them, and cancels in the differences.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from sds_clip.models.choices import SCORE_ERROR, ErrorOf
from sds_clip.models.errors import TeacherError
from sds_clip.models.losses.sds import NoisePredictor
from sds_clip.models.noise import target
from sds_clip.models.teacher.pixels import teacher_preprocess
from sds_clip.models.teacher.teacher import Teacher

GOLDEN_RATIO = (1 + 5**0.5) / 2
_CPU_LATENT_PIXELS = 64**2
"""What the denoiser sees at once on a CPU. More is no faster, and until it ends, nothing is told or can stop."""


@dataclass(frozen=True, eq=False)
class Draws:
    """The timesteps and noise shared by everything that is compared."""

    timesteps: Int[Tensor, "k"]
    noise: Float[Tensor, "k c h w"]


def draws(
    count: int,
    latent_shape: tuple[int, int, int],
    timesteps: int,
    *,
    seed: int,
    t_min: float = 0.3,
    t_max: float = 0.95,
) -> Draws:
    """Draw `count` noise levels and their noise, as a pure function of the arguments, on the CPU.

    One level comes from each of `count` equal parts of [t_min, t_max) * timesteps. The parts come in the
    order of the golden ratio, so that the first few draws also cover the whole range. Below the default
    range, noise distinguishes captions less than it costs; above it, nothing of the image is left.

    Raises:
        TeacherError: no draws, or a range that is empty or leaves [0, 1].
    """
    if count < 1 or not 0 <= t_min < t_max <= 1:
        raise TeacherError(
            f"{count} draws from t_min {t_min} to t_max {t_max}: give at least 1 draw and 0 <= t_min < t_max <= 1."
        )
    generator = torch.Generator().manual_seed(seed)
    part = (torch.arange(count, dtype=torch.float64) * GOLDEN_RATIO % 1).argsort().argsort()
    place = (part + torch.rand(count, dtype=torch.float64, generator=generator)) / count
    levels = ((t_min + (t_max - t_min) * place) * timesteps).long().clamp(max=timesteps - 1)
    return Draws(levels, torch.randn(count, *latent_shape, generator=generator))


@torch.no_grad()
def denoising_errors(
    teacher: NoisePredictor,
    latents: Float[Tensor, "b c h w"],
    captions: Float[Tensor, "b n s e"],
    timesteps: Int[Tensor, "b k"],
    noise: Float[Tensor, "b k c h w"],
    *,
    batch_size: int,
    error_of: ErrorOf = SCORE_ERROR,
    tick: Callable[[], None] = lambda: None,
) -> Float[Tensor, "b n k"]:
    """Return the squared error, mean over elements, of each image under each caption at each of its draws.

    The velocity's error is || v_hat - v ||^2, which for a teacher that predicts noise is the noise's error
    over s^2. At s = 0 such a teacher says nothing about the velocity, and the error is not finite. The
    denoiser sees at most `batch_size` noised latents at once, on a CPU fewer if they are large, and `tick` is called
    after each such batch. Errors are float32 on the latents' device, without gradients.
    """
    device = latents.device
    if device.type == "cpu":
        batch_size = max(1, min(batch_size, _CPU_LATENT_PIXELS // prod(latents.shape[2:])))
    captions, timesteps, noise = captions.to(device), timesteps.to(device), noise.to(device)
    shape = (*captions.shape[:2], timesteps.shape[1])
    errors = []
    for rows in torch.split(torch.arange(prod(shape), device=device), batch_size):
        image, caption, draw = torch.unravel_index(rows, shape)
        levels, eps = timesteps[image, draw], noise[image, draw]
        noisy = teacher.add_noise(latents[image], eps, levels)
        asked = (noisy, levels, captions[image, caption])
        at = teacher.levels[levels]
        if error_of == "velocity" and isinstance(teacher, Teacher) and teacher.predicts_velocity:
            true = target(latents[image], eps, at, at.velocity)
            errors.append(_mean_square(teacher.velocity_pred(*asked) - true))
        else:
            error = _mean_square(teacher.noise_pred(*asked) - eps)
            errors.append(error if error_of == "epsilon" else error / at.signal_power)
        tick()
    return torch.cat(errors).reshape(shape)


def image_errors(
    teacher: Teacher,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    drawn: Draws,
    *,
    batch_size: int = 64,
    error_of: ErrorOf = SCORE_ERROR,
    tick: Callable[[], None] = lambda: None,
) -> Float[Tensor, "n m"]:
    """Return d(x, c) `[caption, image]` of RGB images, all on the same draws, in float64 on the CPU.

    `tick` is called after every call of the denoiser.

    Raises:
        TeacherError: the teacher's VAE is not loaded, or an error is not finite.
    """
    preprocess = teacher_preprocess(teacher.resolution_px)
    latents = teacher.encode_image(torch.stack([preprocess(image) for image in images]))
    errors = denoising_errors(
        teacher,
        latents,
        teacher.encode_captions(captions).expand(len(images), -1, -1, -1),
        drawn.timesteps.expand(len(images), -1),
        drawn.noise.expand(len(images), -1, -1, -1, -1),
        batch_size=batch_size,
        error_of=error_of,
        tick=tick,
    )
    check_finite(errors)
    return errors.double().mean(dim=-1).T.cpu()


def _mean_square(differences: Float[Tensor, "b c h w"]) -> Float[Tensor, "b"]:
    return differences.square().mean(dim=(1, 2, 3))


def check_finite(errors: Tensor) -> None:
    if not errors.isfinite().all():
        raise TeacherError(
            "The teacher's error is not finite. Its precision may be too low: use bfloat16 or "
            "float32. Its weights may be damaged. Or it predicts noise, and the error of the "
            "velocity was asked for at pure noise, where abar is 0: lower the upper end of the "
            "range, or use the error of epsilon."
        )
