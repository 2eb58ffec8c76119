from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from safetensors import safe_open
from torch import Tensor, nn

from demo.sets import training_pairs
from demo.teacher import (
    CONTEXT_LENGTH,
    TEXT_WIDTH,
    new_scheduler,
    new_text_encoder,
    new_unet,
    new_vae,
    save_teacher,
)
from demo.teacher_tokenizer import load_teacher_tokenizer, save_teacher_tokenizer
from demo.train_vae import pixels_to_vae
from models.teacher.load import load_teacher

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
    save_teacher(vae, new_unet(), new_text_encoder(tokenizer), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder).to(torch.float32)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_networks_are_as_large_as_documented(pipeline: StableDiffusionPipeline) -> None:
    assert round(parameters(pipeline.vae) / 1e6, 2) == 0.46
    assert round(parameters(pipeline.unet) / 1e6, 1) == 2.5
    assert round(parameters(pipeline.text_encoder) / 1e6, 1) == 0.4


def test_shapes_are_those_of_the_world(pipeline: StableDiffusionPipeline) -> None:
    with torch.inference_mode():
        latents = pipeline.vae.encode(torch.zeros(2, 3, 64, 64)).latent_dist.mean
        text, _ = pipeline.encode_prompt(CAPTIONS, "cpu", 1, False)
        predicted = pipeline.unet(latents, 500, text).sample
        pixels = pipeline.vae.decode(latents).sample
    assert latents.shape == predicted.shape == (2, 8, 8, 8)
    assert text.shape == (2, CONTEXT_LENGTH, TEXT_WIDTH)
    assert pixels.shape == (2, 3, 64, 64)


def test_stored_weights_are_float16_and_small(folder: Path) -> None:
    for file in folder.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.float16}  # noqa: SIM118
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) < 7_400_000


def test_text_weights_have_the_names_of_every_stable_diffusion_folder(folder: Path) -> None:
    with safe_open(folder / "text_encoder" / "model.safetensors", framework="pt") as weights:
        assert all(name.startswith("text_model.") for name in weights.keys())  # noqa: SIM118


def test_tokenizer_files_are_those_of_both_kinds_of_loader(folder: Path) -> None:
    names = {file.name for file in (folder / "tokenizer").iterdir()}
    assert names == {"vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"}


def test_words_and_places_start_at_one_scale(folder: Path) -> None:
    fresh = new_text_encoder(load_teacher_tokenizer(folder / "tokenizer"))
    weights = {name: weight for name, weight in fresh.named_parameters() if "embedding" in name}
    assert [weight.std().item() for weight in weights.values()] == [pytest.approx(96**-0.5, rel=0.1)] * 2


def test_loaded_teacher_agrees_with_the_pipeline(folder: Path, pipeline: StableDiffusionPipeline) -> None:
    teacher = load_teacher(str(folder), device="cpu", precision="float32", vae=True)
    assert teacher.prediction_type == "v_prediction"
    assert (teacher.latent_shape, teacher.resolution_px, teacher.timesteps) == ((8, 8, 8), 64, 1000)
    assert torch.allclose(teacher.alphas_cumprod, new_scheduler().alphas_cumprod)
    with torch.inference_mode():
        expected, _ = pipeline.encode_prompt(CAPTIONS, "cpu", 1, False)
        assert torch.allclose(teacher.encode_captions(CAPTIONS), expected, atol=1e-5)
        pixels = pixels_to_vae(torch.from_numpy(training_pairs(0, 0, 2).images))
        assert torch.allclose(teacher.encode_image(pixels), scaled_mean(pipeline.vae, pixels), atol=1e-5)


def scaled_mean(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    mean: Tensor = vae.encode(pixels).latent_dist.mean
    return 0.75 * mean
