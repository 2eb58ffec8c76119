"""The demo teacher as it is committed: what the code describes, and able to tell captions apart."""

import dataclasses
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import nn

from demo.teacher import new_scheduler, new_text_encoder, new_unet, new_vae
from demo.teacher_validation import load_teacher_validation, text_scores

FOLDER = Path(__file__).parents[2] / "demo" / "teacher"
MAX_BYTES = 7_400_000


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(FOLDER).to(torch.float32)


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in network.named_parameters()}


def test_its_networks_are_those_of_the_code(pipeline: StableDiffusionPipeline) -> None:
    assert shapes(pipeline.unet) == shapes(new_unet())
    assert shapes(pipeline.vae) == shapes(new_vae())
    assert shapes(pipeline.text_encoder) == shapes(new_text_encoder(pipeline.tokenizer))
    expected = {key: value for key, value in new_scheduler().config.items() if not key.startswith("_")}
    assert {key: pipeline.scheduler.config[key] for key in expected} == expected


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file()) < MAX_BYTES


def test_its_error_tells_swapped_attributes_apart(pipeline: StableDiffusionPipeline) -> None:
    """Half of the pairs would be right by chance; the README's figure is far above this floor."""
    validation = load_teacher_validation(pipeline.vae, items_per_kind=40)
    few = dataclasses.replace(validation, latents=validation.latents[:80], captions=validation.captions[:80])
    few = dataclasses.replace(few, kinds=validation.kinds[:40])
    scores = text_scores(pipeline.unet, pipeline.text_encoder, pipeline.tokenizer, few)
    assert scores["attributes_pair"] > 0.8
