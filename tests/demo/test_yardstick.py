"""The residual gap on real latents, against diffusers' own scheduler and U-Net."""

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from demo.experiment import Variant
from demo.figure import relative_gap
from demo.sets import retrieval_set
from demo.world import Split
from demo.yardstick import real_residuals
from models.checkpoints import load_clip
from models.sources import demo_folder
from models.teacher.load import load_teacher
from models.training.randomness import draw_noise, draw_timesteps

COUNT = 8


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(demo_folder().with_name("teacher"), dtype=torch.float32)


@torch.no_grad()
def test_residuals_are_those_of_the_pipeline_s_parts(pipeline: StableDiffusionPipeline) -> None:
    config = Variant.of("sds", objective="sds-clip", steps=10, t_min=0.3, t_max=0.9).config(0, "demo")
    base = load_clip("demo", device="cpu", precision="float32")
    teacher = load_teacher("demo", device="cpu", precision="float32", vae=True)
    found = real_residuals(config, base, teacher, COUNT)

    pairs = retrieval_set(Split.VALIDATION, COUNT)
    pixels = torch.from_numpy(pairs.images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    latents = pipeline.vae.encode(pixels).latent_dist.mode() * pipeline.vae.config.scaling_factor
    samples = list(range(COUNT))
    timesteps = draw_timesteps(0, 0, samples, 300, 899)  # 0.3 and 0.9 of 0..999, rounded inwards
    noise = draw_noise(0, 0, samples, (8, 8, 8))
    scheduler = pipeline.scheduler
    noisy = scheduler.add_noise(latents, noise, timesteps)
    tokens = pipeline.tokenizer(pairs.captions, padding="max_length", return_tensors="pt")
    embedded = pipeline.text_encoder(tokens.input_ids)[0]
    abar = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    for name, captions in (("residual", embedded), ("residual_shuffled", embedded.roll(1, dims=0))):
        output = pipeline.unet(noisy, timesteps, captions).sample
        if scheduler.config.prediction_type == "v_prediction":
            output = abar.sqrt() * output + (1 - abar).sqrt() * noisy
        assert found[name] == pytest.approx((output - noise).square().mean().item(), rel=1e-3)
    gap = relative_gap(found)
    assert gap is not None
    assert gap > 100  # the demo teacher hears its captions
