from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from models.diffusion_score import (
    DiffusionScorer,
    best_caption,
    denoising_errors,
    denoising_errors_many,
    draws,
)
from models.evaluation.errors import EvaluationError
from models.evaluation.winoground import WinogroundItem, winoground_metrics
from models.teacher.errors import TeacherError
from models.teacher.load import load_teacher
from models.teacher.pixels import teacher_preprocess
from models.teacher.teacher import Teacher
from tests.teachers import save_sd_teacher

SHAPE = (2, 4, 4)


class ToyTeacher:
    """eps_hat = 0.5 z_t + the caption's mean + t / 1000, and it counts what it is asked."""

    def __init__(self) -> None:
        self.alphas_cumprod = torch.linspace(0.99, 0.01, 1000)
        self.batches: list[int] = []

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        abar = self.alphas_cumprod[timesteps][:, None, None, None]
        return abar.sqrt() * latents + (1 - abar).sqrt() * noise

    def noise_pred(self, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor) -> Tensor:
        self.batches.append(len(noisy_latents))
        offset = captions.mean(dim=(1, 2)) + timesteps / 1000
        return 0.5 * noisy_latents + offset[:, None, None, None]


def error_by_hand(latents: Tensor, caption: Tensor, t: int, noise: Tensor) -> float:
    abar = float(torch.linspace(0.99, 0.01, 1000)[t])
    noisy = abar**0.5 * latents.double() + (1 - abar) ** 0.5 * noise.double()
    residual = 0.5 * noisy + float(caption.double().mean()) + t / 1000 - noise.double()
    return float(residual.square().mean())


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
def test_errors_are_those_of_each_image_caption_and_draw(batch_size: int) -> None:
    toy = ToyTeacher()
    latents, captions, noise = randn(2, *SHAPE), randn(2, 3, 5, 6, seed=1), randn(2, 4, *SHAPE, seed=2)
    timesteps = torch.tensor([[0, 10, 500, 999], [1, 2, 3, 4]])
    errors = denoising_errors_many(
        toy, latents, captions, timesteps, noise, batch_size=batch_size, error_of="epsilon"
    )
    assert errors.shape == (2, 3, 4)
    for b, n, k in np.ndindex(2, 3, 4):
        expected = error_by_hand(latents[b], captions[b, n], int(timesteps[b, k]), noise[b, k])
        assert float(errors[b, n, k]) == pytest.approx(expected, rel=1e-5)
    assert max(toy.batches) == min(batch_size, 24)
    assert sum(toy.batches) == 24
    one = denoising_errors(
        toy, latents[0], captions[0], timesteps[0], noise[0], batch_size=batch_size, error_of="epsilon"
    )
    torch.testing.assert_close(one, errors[0])


def test_the_velocity_s_error_is_that_of_the_predicted_velocity() -> None:
    toy, latents, captions, noise = (
        ToyTeacher(),
        randn(*SHAPE),
        randn(2, 5, 6, seed=1),
        randn(3, *SHAPE, seed=2),
    )
    timesteps = torch.tensor([0, 500, 990])
    errors = denoising_errors(toy, latents, captions, timesteps, noise, batch_size=6, error_of="velocity")
    for n, k in np.ndindex(2, 3):
        abar = float(toy.alphas_cumprod[timesteps[k]])
        noisy = abar**0.5 * latents + (1 - abar) ** 0.5 * noise[k]
        noise_pred = toy.noise_pred(noisy[None], timesteps[k : k + 1], captions[n : n + 1])[0]
        clean = (noisy - (1 - abar) ** 0.5 * noise_pred) / abar**0.5
        predicted = abar**0.5 * noise_pred - (1 - abar) ** 0.5 * clean
        velocity = abar**0.5 * noise[k] - (1 - abar) ** 0.5 * latents
        expected = float((predicted - velocity).square().mean())
        assert float(errors[n, k]) == pytest.approx(expected, rel=1e-4)


def test_the_velocity_s_error_at_pure_noise_is_that_of_the_u_net_s_own_output(tmp_path: Path) -> None:
    folder = save_sd_teacher(
        tmp_path, prediction_type="v_prediction", scheduler={"rescale_betas_zero_snr": True}
    )
    teacher = load_teacher(str(folder), device="cpu", precision="float32")
    latents, noise, timesteps = randn(4, 8, 8), randn(3, 4, 8, 8, seed=1), torch.tensor([10, 500, 999])
    captions = teacher.encode_captions(["a red cube", "a blue ball"])
    found = denoising_errors(teacher, latents, captions, timesteps, noise, batch_size=6, error_of="velocity")

    abar = DDIMScheduler.from_pretrained(folder / "scheduler").alphas_cumprod.double()[timesteps]
    assert abar[-1] == 0
    signal, disturbance = (part[:, None, None, None] for part in (abar.sqrt(), (1 - abar).sqrt()))
    noisy = signal * latents.double() + disturbance * noise.double()
    velocity = signal * noise.double() - disturbance * latents.double()
    unet = teacher.unet.double()
    for n, caption in enumerate(captions.double()):
        with torch.no_grad():
            output = unet(noisy, timesteps, caption.expand(3, -1, -1)).sample
        expected = (output - velocity).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(found[n].double(), expected, rtol=1e-5, atol=0)


def test_errors_have_no_gradient() -> None:
    latents = randn(1, *SHAPE).requires_grad_()
    errors = denoising_errors_many(
        ToyTeacher(),
        latents,
        randn(1, 2, 5, 6),
        torch.tensor([[5]]),
        randn(1, 1, *SHAPE),
        batch_size=2,
    )
    assert not errors.requires_grad


def test_draws_are_one_from_each_part_of_the_range_and_repeat_by_seed() -> None:
    drawn = draws(50, SHAPE, 1000, seed=3, t_min=0.3, t_max=0.8)
    assert torch.equal((drawn.timesteps.sort().values - 300) // 10, torch.arange(50))
    again = draws(50, SHAPE, 1000, seed=3, t_min=0.3, t_max=0.8)
    assert torch.equal(again.timesteps, drawn.timesteps)
    assert torch.equal(again.noise, drawn.noise)
    other = draws(50, SHAPE, 1000, seed=4, t_min=0.3, t_max=0.8)
    assert not torch.equal(other.timesteps, drawn.timesteps)
    assert not torch.equal(other.noise, drawn.noise)
    assert abs(float(drawn.noise.mean())) < 0.1
    assert float(drawn.noise.std()) == pytest.approx(1, abs=0.1)


def test_the_first_draws_are_spread_over_the_whole_range() -> None:
    first = draws(64, SHAPE, 1000, seed=0, t_min=0.0, t_max=1.0).timesteps[:8]
    gaps = first.sort().values.diff()
    assert int(gaps.max()) < 2.5 * 1000 / 8


def test_draws_reach_the_ends_of_the_schedule_and_no_further() -> None:
    timesteps = draws(4000, (1, 1, 1), 10, seed=0, t_min=0.0, t_max=1.0).timesteps
    assert torch.equal(timesteps.bincount(), torch.full((10,), 400))


@pytest.mark.parametrize(
    ("count", "t_min", "t_max"), [(0, 0.3, 0.9), (1, 0.9, 0.3), (1, -0.1, 0.9), (1, 0.3, 1.1), (1, 0.5, 0.5)]
)
def test_impossible_draws_are_refused(count: int, t_min: float, t_max: float) -> None:
    with pytest.raises(TeacherError, match="t_min"):
        draws(count, SHAPE, 1000, seed=0, t_min=t_min, t_max=t_max)


class NoisyTeacher(ToyTeacher):
    """Predicts the noise but for an error: the caption's own plus one that differs by latent and caption."""

    def noise_pred(self, noisy_latents: Tensor, timesteps: Tensor, captions: Tensor) -> Tensor:
        self.batches.append(len(noisy_latents))
        own = captions.mean(dim=(1, 2))
        wobble = 0.5 * (1e3 * noisy_latents[:, 0, 0, 0] + 1e3 * own).sin()
        # Latents are zero, so that the noise is in z_t.
        abar = self.alphas_cumprod[timesteps]
        noise = noisy_latents / (1 - abar).sqrt()[:, None, None, None]
        return noise + (own + wobble)[:, None, None, None]


def test_pruning_agrees_with_all_draws_for_a_part_of_the_calls() -> None:
    toy, agreed, calls = NoisyTeacher(), 0, 0
    latents, images = torch.zeros(SHAPE), 100
    for image in range(images):
        captions = (2 + 0.3 * randn(5, 1, 1, seed=image)).expand(5, 5, 6)
        drawn = draws(64, SHAPE, 1000, seed=image)
        errors = denoising_errors(
            toy, latents, captions, drawn.timesteps, drawn.noise, batch_size=320, error_of="epsilon"
        ).double()
        toy.batches.clear()
        best = best_caption(
            toy, latents, captions, drawn.timesteps, drawn.noise, batch_size=64, error_of="epsilon"
        )
        assert best.unet_calls == sum(toy.batches)
        agreed += best.index == int(errors.mean(dim=1).argmin())
        calls += best.unet_calls
    assert agreed >= 99
    assert calls < 0.5 * images * 5 * 64


def test_with_a_large_z_pruning_is_exhaustive() -> None:
    toy, captions, drawn = NoisyTeacher(), randn(4, 1, 1).expand(4, 5, 6), draws(20, SHAPE, 1000, seed=0)
    best = best_caption(
        toy, torch.zeros(SHAPE), captions, drawn.timesteps, drawn.noise, batch_size=8, z=float("inf")
    )
    assert best.unet_calls == 4 * 20


def test_equal_captions_stay_and_the_first_wins() -> None:
    captions, drawn = torch.ones(3, 5, 6), draws(9, SHAPE, 1000, seed=0)
    best = best_caption(
        NoisyTeacher(), torch.zeros(SHAPE), captions, drawn.timesteps, drawn.noise, batch_size=8
    )
    assert (best.index, best.unet_calls) == (0, 27)


def test_one_draw_drops_no_caption() -> None:
    captions, drawn = randn(3, 1, 1).expand(3, 5, 6), draws(2, SHAPE, 1000, seed=0)
    best = best_caption(
        NoisyTeacher(),
        torch.zeros(SHAPE),
        captions,
        drawn.timesteps[:1],
        drawn.noise[:1],
        batch_size=8,
        round_size=1,
    )
    assert best.unet_calls == 3


def test_errors_that_are_not_finite_are_refused() -> None:
    captions, drawn = torch.ones(3, 5, 6), draws(8, SHAPE, 1000, seed=0)
    with pytest.raises(TeacherError, match="not finite"):
        best_caption(
            ToyTeacher(),
            torch.full(SHAPE, torch.nan),
            captions,
            drawn.timesteps,
            drawn.noise,
            batch_size=8,
        )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder = save_sd_teacher(tmp_path_factory.mktemp("teachers") / "v", prediction_type="v_prediction")
    return load_teacher(str(folder), device="cpu", precision="float32", vae=True)


def image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 64, 3), dtype=np.uint8))


def test_scores_are_errors_by_hand_with_and_without_the_unconditional_baseline(teacher: Teacher) -> None:
    drawn = draws(3, teacher.latent_shape, teacher.timesteps, seed=0)
    images, captions = [image(0), image(1)], ["a red cube", "a blue ball", "nothing"]
    scores = DiffusionScorer(teacher, drawn, batch_size=5, error_of="epsilon").score(images, captions)
    assert scores.raw.shape == scores.corrected.shape == (3, 2)
    for m, picture in enumerate(images):
        latents = teacher.encode_image(teacher_preprocess(64)(picture)[None]).expand(3, -1, -1, -1)
        d = {}
        for caption in [*captions, ""]:
            noisy = teacher.add_noise(latents, drawn.noise, drawn.timesteps)
            embeddings = teacher.encode_captions([caption] * 3)
            noise_pred = teacher.noise_pred(noisy, drawn.timesteps, embeddings)
            d[caption] = float((noise_pred - drawn.noise).square().mean())
        for n, caption in enumerate(captions):
            assert float(scores.raw[n, m]) == pytest.approx(-d[caption], rel=1e-5)
            assert float(scores.corrected[n, m]) == pytest.approx(d[""] - d[caption], abs=1e-5)


def test_winoground_scores_are_for_its_metrics(teacher: Teacher, tmp_path: Path) -> None:
    paths = []
    for seed in range(4):
        paths.append(tmp_path / f"{seed}.png")
        image(seed).save(paths[-1])
    items = [
        WinogroundItem("a", (paths[0], paths[1]), ("a cube on a ball", "a ball on a cube")),
        WinogroundItem("b", (paths[2], paths[3]), ("a red cube", "a blue cube")),
    ]
    scorer = DiffusionScorer(teacher, draws(4, teacher.latent_shape, teacher.timesteps, seed=0))
    seen: list[tuple[int, int]] = []
    scores = scorer.score_winoground(items, progress=lambda done, total: seen.append((done, total)))
    alone = scorer.score(items[1].images, items[1].captions)
    torch.testing.assert_close(scores.corrected[1], alone.corrected)
    torch.testing.assert_close(scores.raw[1, 0, 1], alone.raw[0, 1])
    assert winoground_metrics(scores.corrected).text_score == winoground_metrics(scores.raw).text_score
    assert seen == [(1, 2), (2, 2)]


def test_missing_image_is_named(teacher: Teacher, tmp_path: Path) -> None:
    scorer = DiffusionScorer(teacher, draws(2, teacher.latent_shape, teacher.timesteps, seed=0))
    with pytest.raises(EvaluationError, match=r"none\.png"):
        scorer.score([tmp_path / "none.png"], ["a cube"])
