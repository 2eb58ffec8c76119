from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from PIL import Image
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.diffusion_score import (
    denoising_errors,
    draws,
    image_errors,
)
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.pixels import teacher_preprocess
from sds_clip.models.teacher.teacher import Teacher
from tests.teachers import save_sd_teacher
from tests.toy_teacher import SHAPE, ToyTeacher, randn


def error_by_hand(latents: Tensor, caption: Tensor, t: int, noise: Tensor) -> float:
    abar = float(torch.linspace(0.99, 0.01, 1000)[t])
    noisy = abar**0.5 * latents.double() + (1 - abar) ** 0.5 * noise.double()
    residual = 0.5 * noisy + float(caption.double().mean()) + t / 1000 - noise.double()
    return float(residual.square().mean())


@pytest.mark.parametrize("batch_size", [1, 4, 5, 100])
def test_errors_are_those_of_each_image_caption_and_draw(batch_size: int) -> None:
    toy = ToyTeacher()
    latents, captions, noise = randn(2, *SHAPE), randn(2, 3, 5, 6, seed=1), randn(2, 4, *SHAPE, seed=2)
    timesteps = torch.tensor([[0, 10, 500, 999], [1, 2, 3, 4]])
    errors = denoising_errors(
        toy, latents, captions, timesteps, noise, batch_size=batch_size, error_of="epsilon"
    )
    assert errors.shape == (2, 3, 4)
    for b, n, k in np.ndindex(2, 3, 4):
        expected = error_by_hand(latents[b], captions[b, n], int(timesteps[b, k]), noise[b, k])
        assert float(errors[b, n, k]) == pytest.approx(expected, rel=1e-5)
    assert max(toy.batches) == min(batch_size, 24)
    assert sum(toy.batches) == 24
    one = [value[:1] for value in (latents, captions, timesteps, noise)]
    alone = denoising_errors(toy, *one, batch_size=batch_size, error_of="epsilon")
    torch.testing.assert_close(alone, errors[:1])


def test_the_velocity_s_error_is_that_of_the_predicted_velocity() -> None:
    toy, latents, captions, noise = (
        ToyTeacher(),
        randn(*SHAPE),
        randn(2, 5, 6, seed=1),
        randn(3, *SHAPE, seed=2),
    )
    timesteps = torch.tensor([0, 500, 990])
    asked = (latents[None], captions[None], timesteps[None], noise[None])
    (errors,) = denoising_errors(toy, *asked, batch_size=6, error_of="velocity")
    for n, k in np.ndindex(2, 3):
        abar = float(toy.levels.signal_power[timesteps[k]])
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
    asked = (latents[None], captions[None], timesteps[None], noise[None])
    (found,) = denoising_errors(teacher, *asked, batch_size=6, error_of="velocity")

    abar = DDIMScheduler.from_pretrained(folder / "scheduler").alphas_cumprod.double()[timesteps]
    assert abar[-1] == 0
    signal, disturbance = (part[:, None, None, None] for part in (abar.sqrt(), (1 - abar).sqrt()))
    noisy = signal * latents.double() + disturbance * noise.double()
    velocity = signal * noise.double() - disturbance * latents.double()
    unet = teacher.denoiser.double()
    for n, caption in enumerate(captions.double()):
        with torch.no_grad():
            output = unet(noisy, timesteps, caption.expand(3, -1, -1)).sample
        expected = (output - velocity).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(found[n].double(), expected, rtol=1e-5, atol=0)


def test_errors_have_no_gradient() -> None:
    latents = randn(1, *SHAPE).requires_grad_()
    errors = denoising_errors(
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


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder = save_sd_teacher(tmp_path_factory.mktemp("teachers") / "v", prediction_type="v_prediction")
    return load_teacher(str(folder), device="cpu", precision="float32", vae=True)


def image(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (70, 64, 3), dtype=np.uint8))


def test_errors_of_images_are_those_by_hand(teacher: Teacher) -> None:
    drawn = draws(3, teacher.latent_shape, teacher.timesteps, seed=0)
    images, captions = [image(0), image(1)], ["a red cube", "a blue ball", "nothing"]
    errors = image_errors(teacher, images, [*captions, ""], drawn, batch_size=5, error_of="epsilon")
    assert errors.shape == (4, 2)
    assert errors.dtype == torch.float64
    for m, picture in enumerate(images):
        latents = teacher.encode_image(teacher_preprocess(64)(picture)[None]).expand(3, -1, -1, -1)
        for n, caption in enumerate([*captions, ""]):
            noisy = teacher.add_noise(latents, drawn.noise, drawn.timesteps)
            embeddings = teacher.encode_captions([caption] * 3)
            noise_pred = teacher.noise_pred(noisy, drawn.timesteps, embeddings)
            d = float((noise_pred - drawn.noise).square().mean())
            assert float(errors[n, m]) == pytest.approx(d, rel=1e-5)
