import numpy as np
import pytest
import torch

from sds_clip.models.training.randomness import draw_noise, draw_timesteps

SHAPE = (4, 8, 8)


def test_noise_is_the_same_however_a_batch_is_split() -> None:
    samples = [5, 3, 9, 11]
    whole = draw_noise(7, 2, samples, SHAPE)
    parts = [draw_noise(7, 2, samples[:1], SHAPE), draw_noise(7, 2, samples[1:], SHAPE)]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(
        draw_timesteps(7, 2, samples, 0, 999),
        torch.cat([draw_timesteps(7, 2, [sample], 0, 999) for sample in samples]),
    )


@pytest.mark.parametrize(("seed", "step", "sample"), [(8, 2, 5), (7, 3, 5), (7, 2, 6)])
def test_another_seed_step_or_sample_has_other_noise(seed: int, step: int, sample: int) -> None:
    assert not torch.equal(draw_noise(7, 2, [5], SHAPE), draw_noise(seed, step, [sample], SHAPE))


def test_noise_is_standard_normal() -> None:
    noise = draw_noise(0, 0, range(200), SHAPE)
    assert noise.dtype is torch.float32
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)


def test_timesteps_are_uniform_on_both_ends_of_the_range() -> None:
    drawn = draw_timesteps(0, 0, range(2000), 3, 7).numpy()
    assert np.bincount(drawn, minlength=8)[:3].sum() == 0
    assert np.bincount(drawn)[3:] == pytest.approx([400] * 5, abs=80)
