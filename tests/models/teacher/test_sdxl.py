"""Stable Diffusion XL as a teacher, against diffusers' own pipeline on small random folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.teacher import Teacher
from tests.models.teacher.pipelines import (
    CAPTIONS,
    TIMESTEPS,
    check_cache,
    check_condition,
    check_gradient,
    check_latents,
    check_low_precision,
    check_noise,
    load,
    network_calls,
    randn,
)
from tests.teachers import noise_by_scheduler, save_sd_teacher, save_sdxl_teacher


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sdxl_teacher(tmp_path_factory.mktemp("sdxl"), prediction_type=request.param)


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    return load(folder, vae=True)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    own = StableDiffusionXLPipeline.from_pretrained(str(folder), use_safetensors=True, add_watermarker=False)
    own.set_progress_bar_config(disable=True)
    return own


def test_captions_are_those_of_the_pipeline(teacher: Teacher, pipeline: Any) -> None:
    embeddings, without, pooled, pooled_without = pipeline.encode_prompt(CAPTIONS, device="cpu")
    found = teacher.encode_captions(CAPTIONS)
    for row in (0, 2):
        torch.testing.assert_close(found[row, 1:], embeddings[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(found[row, 0, :20], pooled[row], rtol=0, atol=1e-5)
        assert not found[row, 0, 20:].any()
    assert torch.equal(found[1, 1:], without[1])
    assert torch.equal(found[1, 0, :20], pooled_without[1])


def test_the_network_is_called_as_by_the_pipeline(teacher: Teacher, pipeline: Any) -> None:
    captions = teacher.encode_captions(CAPTIONS[:1])
    for given, output in network_calls(pipeline, pipeline.unet, guidance_scale=1.0):
        assert given["added_cond_kwargs"]["time_ids"].tolist() == [[64, 64, 0, 0, 64, 64]]
        found = teacher.family.output(
            teacher.denoiser, given["sample"], given["timestep"], captions, resolution_px=64
        )
        torch.testing.assert_close(found, output, rtol=0, atol=1e-5)


def test_predicted_noise_and_gradient_are_those_of_the_pipeline_s_own_parts(
    teacher: Teacher, pipeline: Any
) -> None:
    noise, captions = randn(3, 4, 8, 8, seed=1), ["a red cube", "a ball", CAPTIONS[2]]
    embeddings, _, pooled, _ = pipeline.encode_prompt(captions, device="cpu")
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]] * 3)}

    def own(latents: Tensor) -> Tensor:
        noisy = pipeline.scheduler.add_noise(latents, noise, TIMESTEPS)
        output = pipeline.unet(noisy, TIMESTEPS, embeddings, added_cond_kwargs=added).sample
        return noise_by_scheduler(pipeline.scheduler, output, noisy, TIMESTEPS)

    check_noise(teacher, teacher.encode_captions(captions), noise, own)


def test_guidance_starts_from_zeros(folder: Path, teacher: Teacher) -> None:
    noisy, captions = randn(3, 4, 8, 8), teacher.encode_captions(CAPTIONS)
    without = teacher.noise_pred(noisy, TIMESTEPS, torch.zeros_like(captions))
    under = teacher.noise_pred(noisy, TIMESTEPS, captions)
    guided = load(folder, guidance=3.0).noise_pred(noisy, TIMESTEPS, captions)
    torch.testing.assert_close(guided, without + 3.0 * (under - without), rtol=0, atol=1e-5)


def test_a_folder_without_forced_zeros_encodes_no_caption_as_a_text(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "t"))
    edit(other / "model_index.json", force_zeros_for_empty_prompt=False)
    own = StableDiffusionXLPipeline.from_pretrained(str(other), use_safetensors=True, add_watermarker=False)
    _, without, _, _ = own.encode_prompt([CAPTIONS[0]], device="cpu")
    teacher = load(other)
    torch.testing.assert_close(teacher.encode_captions([""])[0, 1:], without[0], rtol=0, atol=1e-5)
    assert teacher.version != load(folder).version


def test_a_condition_has_no_pooled_vector(teacher: Teacher) -> None:
    check_condition(teacher, 40)


def test_images_become_the_latents_of_the_pipeline_s_vae(teacher: Teacher, pipeline: Any) -> None:
    check_latents(teacher, pipeline)


def test_gradient_of_l_sds_is_its_finite_difference(folder: Path) -> None:
    check_gradient(folder)


def test_captions_are_kept_with_their_pooled_vector(folder: Path, tmp_path: Path) -> None:
    check_cache(folder, tmp_path)


def test_low_precision_is_near(folder: Path, teacher: Teacher) -> None:
    check_low_precision(folder, teacher)


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        ("model_index.json", {"requires_aesthetics_score": True}, "it is a refiner"),
        ("model_index.json", {"text_encoder": [None, None], "tokenizer": [None, None]}, "it is a refiner"),
        ("unet/config.json", {"in_channels": 9}, "inpainting"),
        ("unet/config.json", {"addition_embed_type": None}, "that of another family"),
        ("unet/config.json", {"addition_embed_type": "image"}, "more than a caption"),
        ("scheduler/scheduler_config.json", {"_class_name": "EDMDPMSolverMultistepScheduler"}, "EDM"),
        ("scheduler/scheduler_config.json", {"sigma_data": 0.5}, "EDM"),
        ("scheduler/scheduler_config.json", {"_class_name": "LCMScheduler"}, "few steps"),
        ("scheduler/scheduler_config.json", {"_class_name": "FlowMatchEulerDiscreteScheduler"}, "mixes families"),
        ("text_encoder_2/config.json", {"model_type": "t5"}, "mixes families"),
        ("model_index.json", {"transformer": ["diffusers", "SD3Transformer2DModel"]}, "mixes families"),
        ("model_index.json", {"text_encoder_3": ["transformers", "T5EncoderModel"]}, "mixes families"),
        ("model_index.json", {"text_encoder_2": [None, None]}, "without text_encoder_2"),
    ],
)  # fmt: skip
def test_what_is_no_plain_sdxl_is_refused(
    folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], reason: str
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "t"))
    edit(other / file, **changes)
    with pytest.raises(TeacherError, match=reason):
        load(other)


@pytest.mark.parametrize("name", ["sdxl-turbo", "SDXL-Lightning", "lcm-sdxl"])
def test_few_step_models_are_known_by_their_names(name: str, folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / name))
    with pytest.raises(TeacherError, match=r"in its name.*few steps.*a folder of another name"):
        load(other)


def test_the_u_net_of_stable_diffusion_1_in_a_folder_of_xl_is_refused(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "t"))
    shutil.rmtree(other / "unet")
    shutil.copytree(save_sd_teacher(tmp_path / "sd") / "unet", other / "unet")
    with pytest.raises(TeacherError, match="that of another family"):
        load(other)


def test_text_encoders_of_other_widths_are_refused(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "t"))
    shutil.rmtree(other / "text_encoder")
    shutil.copytree(save_sd_teacher(tmp_path / "sd") / "text_encoder", other / "text_encoder")
    with pytest.raises(TeacherError, match="width 40, but the text encoders make them of width 56"):
        load(other)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
