from dataclasses import replace
from pathlib import Path

import pytest
import torch

import sds_clip.demo.train_vae
from sds_clip.demo.lessons import ShapeLessons
from sds_clip.demo.sets import training_pairs
from sds_clip.demo.train_vae import VaeRecipe, pixels_to_vae, train_vae

SHORT = VaeRecipe(steps=4, batch_size=4, warmup_steps=2)
LESSONS = ShapeLessons(SHORT.seed)


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sds_clip.demo.train_vae, "SCALE_IMAGES", 64)


def test_pixels_become_the_range_of_diffusers() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert torch.allclose(pixels_to_vae(pixels).flatten(), torch.tensor([-1.0, -0.6, 1.0]))


def test_run_stopped_and_resumed_ends_where_a_whole_run_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_vae(SHORT, LESSONS, tmp_path / "whole", save_every=2)
    steps: list[int] = []

    def stop_in_the_fourth(lessons: ShapeLessons, start: int, count: int) -> object:
        steps.append(start // count)
        if start // count == 3:
            raise KeyboardInterrupt
        return training_pairs(lessons.seed, start, count).images

    with monkeypatch.context() as patch:
        patch.setattr(ShapeLessons, "images", stop_in_the_fourth)
        with pytest.raises(KeyboardInterrupt):
            train_vae(SHORT, LESSONS, tmp_path / "parts", save_every=2)
    assert steps == [0, 1, 2, 3]
    resumed = train_vae(SHORT, LESSONS, tmp_path / "parts", save_every=2)
    assert whole.config.scaling_factor == resumed.config.scaling_factor
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_scaling_factor_brings_latents_to_unit_deviation(tmp_path: Path) -> None:
    vae = train_vae(SHORT, LESSONS, tmp_path)
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    pixels = pixels_to_vae(torch.from_numpy(training_pairs(SHORT.seed, 0, 64).images))
    with torch.inference_mode():
        latents = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
    assert latents.std().item() == pytest.approx(1, rel=1e-3)


def test_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="lower the learning rate"):
        train_vae(replace(SHORT, kl_weight=float("inf")), LESSONS, tmp_path)
    assert not (tmp_path / "vae.pt").exists()
