from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, PixArtSigmaPipeline
from safetensors import safe_open
from torch import Tensor, nn

from sds_clip.demo.sets import training_pairs
from sds_clip.demo.teacher import (
    CONTEXT_LENGTH,
    TEXT_WIDTH,
    new_scheduler,
    new_text_encoder,
    new_transformer,
    new_vae,
    save_teacher,
)
from sds_clip.demo.teacher_tokenizer import load_teacher_tokenizer, save_teacher_tokenizer
from sds_clip.demo.train_vae import pixels_to_vae
from sds_clip.models.teacher.load import load_teacher

CAPTIONS = ["a red circle left of a blue star", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with random weights, saved as the trained one is."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("demo") / "teacher"
    save_teacher_tokenizer(
        folder.with_name("tokenizer"), training_pairs(1000, 0, 2048).captions, CONTEXT_LENGTH
    )
    tokenizer = load_teacher_tokenizer(folder.with_name("tokenizer"))
    vae = new_vae()
    vae.register_to_config(scaling_factor=0.75)
    save_teacher(vae, new_transformer(), new_text_encoder(tokenizer), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline.from_pretrained(folder).to(torch.float32)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_networks_are_as_large_as_documented(pipeline: PixArtSigmaPipeline) -> None:
    assert round(parameters(pipeline.vae) / 1e6, 2) == 0.46
    assert round(parameters(pipeline.transformer) / 1e6, 1) == 3.9
    assert round(parameters(pipeline.text_encoder) / 1e6, 1) == 0.8


def test_shapes_are_those_of_the_world(pipeline: PixArtSigmaPipeline) -> None:
    with torch.inference_mode():
        latents = pipeline.vae.encode(torch.zeros(2, 3, 64, 64)).latent_dist.mean
        text, mask, *_ = pipeline.encode_prompt(CAPTIONS, device="cpu", max_sequence_length=CONTEXT_LENGTH)
        levels = torch.tensor([500, 500])
        predicted = pipeline.transformer(latents, text, levels, encoder_attention_mask=mask).sample
        pixels = pipeline.vae.decode(latents).sample
    assert latents.shape == predicted.shape == (2, 8, 8, 8)
    assert text.shape == (2, CONTEXT_LENGTH, TEXT_WIDTH)
    assert pixels.shape == (2, 3, 64, 64)


def test_stored_weights_are_float16_and_small(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 14_000_000


def test_its_first_prediction_is_zero(folder: Path) -> None:
    transformer = new_transformer()
    text, levels = torch.randn(2, CONTEXT_LENGTH, TEXT_WIDTH), torch.tensor([3, 900])
    with torch.no_grad():
        assert transformer(torch.randn(2, 8, 8, 8), text, levels).sample.abs().max() < 0.2


def test_word_order_changes_a_caption_s_encoding(pipeline: PixArtSigmaPipeline) -> None:
    """A text encoder that starts as a bag of words learns binding late."""
    texts = ["a red circle left of a blue star", "a blue circle left of a red star"]
    text, *_ = pipeline.encode_prompt(texts, device="cpu", max_sequence_length=CONTEXT_LENGTH)
    assert (text[0, 2] - text[1, 2]).norm() > 0.05 * text[0, 2].norm()  # both are "circle"


def test_loaded_teacher_agrees_with_the_pipeline(folder: Path, pipeline: PixArtSigmaPipeline) -> None:
    teacher = load_teacher(str(folder), device="cpu", precision="float32", vae=True)
    assert teacher.prediction_type == "v_prediction"
    assert (teacher.latent_shape, teacher.resolution_px, teacher.timesteps) == ((8, 8, 8), 64, 1000)
    assert torch.allclose(teacher.levels.signal_power, new_scheduler().alphas_cumprod)
    with torch.inference_mode():
        text, mask, *_ = pipeline.encode_prompt(CAPTIONS, device="cpu", max_sequence_length=CONTEXT_LENGTH)
        found = teacher.encode_captions(CAPTIONS)
        assert torch.allclose(found[..., :-1], text, atol=1e-5)
        assert torch.equal(found[..., -1], mask.float())
        pixels = pixels_to_vae(torch.from_numpy(training_pairs(0, 0, 2).images))
        assert torch.allclose(teacher.encode_image(pixels), scaled_mean(pipeline.vae, pixels), atol=1e-5)


def scaled_mean(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    mean: Tensor = vae.encode(pixels).latent_dist.mean
    return 0.75 * mean
