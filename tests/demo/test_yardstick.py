"""The residual gap on real latents, against the parts of diffusers' own pipeline."""

import numpy as np
import pytest
import torch
from diffusers import PixArtSigmaPipeline

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
def pipeline() -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline.from_pretrained(demo_folder().with_name("teacher"), dtype=torch.float32)


@torch.no_grad()
def test_residuals_are_those_of_the_pipeline_s_parts(pipeline: PixArtSigmaPipeline) -> None:
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
    length = pipeline.tokenizer.model_max_length
    embedded, mask, _, _ = pipeline.encode_prompt(
        pairs.captions, do_classifier_free_guidance=False, device="cpu", max_sequence_length=length
    )
    abar = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    assert scheduler.config.prediction_type == "v_prediction"
    for name, shift in (("residual", 0), ("residual_shuffled", 1)):
        captions, captions_mask = embedded.roll(shift, dims=0), mask.roll(shift, dims=0)
        velocity = pipeline.transformer(
            noisy, captions, timesteps, encoder_attention_mask=captions_mask
        ).sample
        output = abar.sqrt() * velocity + (1 - abar).sqrt() * noisy
        assert found[name] == pytest.approx((output - noise).square().mean().item(), rel=1e-3)
    gap = relative_gap(found)
    assert gap is not None
    assert gap > 100  # the demo teacher hears its captions
