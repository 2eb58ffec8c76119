"""The diffusion score d(x, c): how badly a teacher denoises an image's latents under a caption.

    d(x, c) = E_{t, eps} || eps_theta(z_t, t, c) - eps ||^2, the mean over a latent's elements

or the same of the velocity v = sqrt(abar_t) eps - sqrt(1 - abar_t) z_0, which counts high noise for more.
The caption with the smallest d wins. What is compared shares its timesteps and noise (arXiv 2303.16203): most of
the error's variance is theirs, and drops out of the differences.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from models.evaluation.features import Progress, open_image
from models.evaluation.names import SCORE_ERROR, ErrorOf
from models.evaluation.winoground import WinogroundItem
from models.losses.sds import NoisePredictor
from models.teacher.errors import TeacherError
from models.teacher.noise import velocity
from models.teacher.pixels import teacher_preprocess
from models.teacher.teacher import UNCONDITIONAL, Teacher

GOLDEN_RATIO = (1 + 5**0.5) / 2


@dataclass(frozen=True, eq=False)
class Draws:
    """Timesteps and noise that everything compared is measured on."""

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
    """`count` noise levels, one from each of as many equal parts of [t_min, t_max) * timesteps, and their noise.

    A pure function of its arguments, computed on the CPU. The parts come in the golden ratio's order, so that the
    first few draws are spread over the whole range too. Noise lower than the default range tells captions apart
    less than it costs, and more leaves nothing of the image.

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
def denoising_errors_many(
    teacher: NoisePredictor,
    latents: Float[Tensor, "b c h w"],
    captions: Float[Tensor, "b n s e"],
    timesteps: Int[Tensor, "b k"],
    noise: Float[Tensor, "b k c h w"],
    *,
    batch_size: int,
    error_of: ErrorOf = SCORE_ERROR,
    tick: Callable[[], None] | None = None,
) -> Float[Tensor, "b n k"]:
    """The squared error, mean over elements, for every image under each of its captions at each of its draws.

    The velocity's error is || v_hat - v ||^2, which for a teacher that predicts noise is the noise's over abar. At
    abar = 0 such a teacher says nothing of the velocity, and the error is not finite.
    The U-Net sees at most `batch_size` noised latents at once, and each time `tick` is called. Float32, on the
    latents' device; no gradient.
    """
    device = latents.device
    captions, timesteps, noise = captions.to(device), timesteps.to(device), noise.to(device)
    shape = (*captions.shape[:2], timesteps.shape[1])
    errors = []
    for rows in _chunks(torch.arange(prod(shape), device=device), batch_size):
        image, caption, draw = torch.unravel_index(rows, shape)
        levels, eps = timesteps[image, draw], noise[image, draw]
        noisy = teacher.add_noise(latents[image], eps, levels)
        asked = (noisy, levels, captions[image, caption])
        abar = teacher.alphas_cumprod[levels]
        if error_of == "velocity" and isinstance(teacher, Teacher) and teacher.predicts_velocity:
            errors.append(_mean_square(teacher.velocity_pred(*asked) - velocity(latents[image], eps, abar)))
        else:
            error = _mean_square(teacher.noise_pred(*asked) - eps)
            errors.append(error if error_of == "epsilon" else error / abar)
        if tick is not None:
            tick()
    return torch.cat(errors).reshape(shape)


def denoising_errors(
    teacher: NoisePredictor,
    latents: Float[Tensor, "c h w"],
    captions: Float[Tensor, "n s e"],
    timesteps: Int[Tensor, "k"],
    noise: Float[Tensor, "k c h w"],
    *,
    batch_size: int,
    error_of: ErrorOf = SCORE_ERROR,
) -> Float[Tensor, "n k"]:
    """`denoising_errors_many` for one image."""
    batch = (value[None] for value in (latents, captions, timesteps, noise))
    return denoising_errors_many(teacher, *batch, batch_size=batch_size, error_of=error_of)[0]


@dataclass(frozen=True)
class BestCaption:
    """The winner among an image's captions, and what finding it cost."""

    index: int
    unet_calls: int
    """Noised latents that went through the U-Net; comparing all captions on all draws takes n k of them."""


def best_caption(
    teacher: NoisePredictor,
    latents: Float[Tensor, "c h w"],
    captions: Float[Tensor, "n s e"],
    timesteps: Int[Tensor, "k"],
    noise: Float[Tensor, "k c h w"],
    *,
    batch_size: int,
    round_size: int = 8,
    z: float = 2.5,
    error_of: ErrorOf = SCORE_ERROR,
) -> BestCaption:
    """The caption with the smallest d(x, c), with hopeless ones dropped early.

    The draws are used in rounds of `round_size`. After each, with e_jk caption j's excess over the leading caption
    on draw k, caption j is dropped where sum_k e_jk > z sqrt(sum_k e_jk^2), over all draws so far. Where both are
    equally good a round does this with a chance below exp(-z^2 / 2), for any number of draws, if e is symmetric
    (self-normalised sums). It ends with one caption left, or with the draws. A large `z` drops none.

    Raises:
        TeacherError: an error is not finite.
    """
    alive = torch.arange(len(captions), device=captions.device)
    seen = torch.empty(len(captions), 0, dtype=torch.float64, device=latents.device)
    unet_calls = 0
    for levels, eps in zip(_chunks(timesteps, round_size), _chunks(noise, round_size), strict=True):
        new = denoising_errors(
            teacher, latents, captions[alive], levels, eps, batch_size=batch_size, error_of=error_of
        )
        check_finite(new)
        unet_calls += new.numel()
        seen = torch.cat([seen, new.double()], dim=1)
        leader = seen.mean(dim=1).argmin()
        excess = seen - seen[leader]
        kept = ~(excess.sum(dim=1) > z * excess.square().sum(dim=1).sqrt())
        alive, seen = alive[kept.to(alive.device)], seen[kept]
        if len(alive) == 1:
            break
    return BestCaption(int(alive[seen.mean(dim=1).argmin().to(alive.device)]), unet_calls)


@dataclass(frozen=True, eq=False)
class DiffusionScores:
    """Scores `[..., caption, image]`, float64 on the CPU; higher is better."""

    raw: Float[Tensor, "*items n m"]
    """-d(x, c): compares captions of one image, not images."""
    corrected: Float[Tensor, "*items n m"]
    """d(x, no caption) - d(x, c): what the caption explains of the image; compares both."""


class DiffusionScorer:
    """Scores images under captions by a teacher whose VAE is loaded, all on the same draws.

    `preprocess` is for `models.teacher.pixels.teacher_preprocess` with the student's way of cropping; open_clip's
    usual one where it is not given.
    """

    def __init__(
        self,
        teacher: Teacher,
        drawn: Draws,
        *,
        preprocess: Callable[[Image.Image], Float[Tensor, "3 h w"]] | None = None,
        batch_size: int = 64,
        error_of: ErrorOf = SCORE_ERROR,
    ) -> None:
        self._teacher = teacher
        self._draws = drawn
        self._preprocess = preprocess or teacher_preprocess(teacher.resolution_px)
        self._batch_size = batch_size
        self._error_of: ErrorOf = error_of

    def score(self, images: Sequence[Path | Image.Image], captions: Sequence[str]) -> DiffusionScores:
        """Score every caption for every image.

        Raises: as `errors`.
        """
        d = self.errors(images, [*captions, UNCONDITIONAL])
        return DiffusionScores(raw=-d[:-1], corrected=d[-1] - d[:-1])

    def errors(
        self,
        images: Sequence[Path | Image.Image],
        captions: Sequence[str],
        *,
        tick: Callable[[], None] | None = None,
    ) -> Float[Tensor, "n m"]:
        """d(x, c) `[caption, image]`, float64 on the CPU; `tick` is called after every U-Net call.

        Raises:
            EvaluationError: a file is missing or is not an image that can be decoded.
            TeacherError: the VAE is not loaded, or an error is not finite.
        """
        pixels = torch.stack([self._preprocess(open_image(image)) for image in images])
        latents = self._teacher.encode_image(pixels)
        embeddings = self._teacher.encode_captions(captions)
        errors = denoising_errors_many(
            self._teacher,
            latents,
            embeddings.expand(len(images), -1, -1, -1),
            self._draws.timesteps.expand(len(images), -1),
            self._draws.noise.expand(len(images), -1, -1, -1, -1),
            batch_size=self._batch_size,
            error_of=self._error_of,
            tick=tick,
        )
        check_finite(errors)
        return errors.double().mean(dim=-1).T.cpu()

    def score_winoground(
        self, items: Sequence[WinogroundItem], *, progress: Progress | None = None
    ) -> DiffusionScores:
        """Scores `[item, caption, image]` for `models.evaluation.winoground.winoground_metrics`.

        Raises: as `score`.
        """
        scored = []
        for item in items:
            scored.append(self.score(item.images, item.captions))
            if progress is not None:
                progress(len(scored), len(items))
        return DiffusionScores(
            raw=torch.stack([scores.raw for scores in scored]),
            corrected=torch.stack([scores.corrected for scores in scored]),
        )


def _chunks(values: Tensor, size: int) -> Iterable[Tensor]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _mean_square(differences: Float[Tensor, "b c h w"]) -> Float[Tensor, "b"]:
    return differences.square().mean(dim=(1, 2, 3))


def check_finite(errors: Tensor) -> None:
    """Raise TeacherError where an error is not a finite number."""
    if not errors.isfinite().all():
        raise TeacherError(
            "The teacher's error is not finite. Its precision is too low (use bfloat16 or float32), its weights are "
            "damaged, or it predicts noise and its velocity was asked for at pure noise, where abar is 0 (lower the "
            "range's upper end, or take the error of epsilon)."
        )
