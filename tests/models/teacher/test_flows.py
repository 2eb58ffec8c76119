"""Stable Diffusion 3 and FLUX.1 as teachers, against diffusers' own pipelines on small random folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, FluxPipeline, StableDiffusion3Pipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.diffusion_score import denoising_errors
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
from tests.teachers import save_flux_teacher, save_sd3_teacher

SAVERS = {"sd3": save_sd3_teacher, "flux": save_flux_teacher}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("flows")
    made = {name: save(place / name) for name, save in SAVERS.items()}
    return {**made, "sd3 without t5": save_sd3_teacher(place / "no t5", t5=False)}


@pytest.fixture(scope="module", params=["sd3", "sd3 without t5", "flux"])
def folder(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    return load(folder, vae=True)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Any:
    kind = FluxPipeline if folder.name == "flux" else StableDiffusion3Pipeline
    missing = {"text_encoder_3": None, "tokenizer_3": None} if folder.name == "no t5" else {}
    own = kind.from_pretrained(str(folder), use_safetensors=True, **missing)
    own.set_progress_bar_config(disable=True)
    return own


def encoded(pipeline: Any, captions: list[str]) -> tuple[Tensor, Tensor]:
    """The pipeline's embeddings and pooled vectors."""
    if isinstance(pipeline, FluxPipeline):
        embeddings, pooled, _ = pipeline.encode_prompt(captions, None, device="cpu")
        return embeddings, pooled
    embeddings, _, pooled, _ = pipeline.encode_prompt(captions, None, None, device="cpu")
    return embeddings, pooled


def test_captions_are_those_of_the_pipeline(teacher: Teacher, pipeline: Any) -> None:
    embeddings, pooled = encoded(pipeline, CAPTIONS)
    found = teacher.encode_captions(CAPTIONS)
    torch.testing.assert_close(found[:, 1:], embeddings, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[:, 0, : pooled.shape[1]], pooled, rtol=0, atol=1e-5)
    assert not found[:, 0, pooled.shape[1] :].any()


def test_the_network_is_called_as_by_the_pipeline(teacher: Teacher, pipeline: Any) -> None:
    """The pipeline draws in packs in the case of FLUX.1, and says its times in thousandths."""
    captions, flux = teacher.encode_captions(CAPTIONS[:1]), isinstance(pipeline, FluxPipeline)
    options = {} if flux else {"guidance_scale": 1.0}
    for given, output in network_calls(pipeline, pipeline.transformer, **options):
        noisy, times = given["hidden_states"], given["timestep"]
        if flux:
            noisy, output = (FluxPipeline._unpack_latents(each, 64, 64, 8) for each in (noisy, output))
            times = times * 1000
        found = teacher.family.output(
            teacher.denoiser, noisy, times, captions, resolution_px=64, guidance=3.5 if flux else None
        )
        torch.testing.assert_close(found, output, rtol=0, atol=1e-5)


def test_levels_are_those_that_the_pipeline_passes(teacher: Teacher, pipeline: Any) -> None:
    own = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    sigmas = teacher.levels.noise.flatten()
    assert float(sigmas[-1]) == 1
    assert bool((sigmas.diff() > 0).all())
    if isinstance(pipeline, FluxPipeline):
        mu = calculate_shift(4 * 4, 4, 64)
        own.set_timesteps(sigmas=np.linspace(1.0, 1 / 1000, 1000), mu=mu)
        torch.testing.assert_close(own.timesteps.flip(0) / 1000, sigmas, rtol=1e-5, atol=0)
        assert float(sigmas[499]) != pytest.approx(0.5, abs=0.05)
    else:
        torch.testing.assert_close(own.timesteps.flip(0) / 1000, sigmas, rtol=1e-6, atol=0)
        assert float(sigmas[499]) == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


def test_predicted_noise_and_gradient_are_those_of_the_pipeline_s_own_parts(
    teacher: Teacher, pipeline: Any
) -> None:
    """The step of its scheduler from sigma to 0 leads to the clean latents, and these and z_t to the noise."""
    noise = randn(3, *teacher.latent_shape, seed=1)
    sigmas = teacher.levels[TIMESTEPS].noise
    embeddings, pooled = encoded(pipeline, CAPTIONS)
    times = 1000 * sigmas.flatten()

    def flow(noisy: Tensor) -> Tensor:
        if not isinstance(pipeline, FluxPipeline):
            return pipeline.transformer(noisy, embeddings, pooled, times).sample  # type: ignore[no-any-return]
        packed = FluxPipeline._pack_latents(noisy, 3, noisy.shape[1], 8, 8)
        places = FluxPipeline._prepare_latent_image_ids(3, 4, 4, "cpu", torch.float32)
        output = pipeline.transformer(
            packed, embeddings, pooled, times / 1000, places, torch.zeros(embeddings.shape[1], 3),
            guidance=torch.ones(3),
        ).sample  # fmt: skip
        return FluxPipeline._unpack_latents(output, 64, 64, 8)  # type: ignore[no-any-return]

    def own(latents: Tensor) -> Tensor:
        noisy = sigmas * noise + (1 - sigmas) * latents
        clean = noisy - sigmas * flow(noisy)
        return (noisy - (1 - sigmas) * clean) / sigmas

    check_noise(teacher, teacher.encode_captions(CAPTIONS), noise, own)
    noisy = randn(3, *teacher.latent_shape)
    found = teacher.velocity_pred(noisy, TIMESTEPS, teacher.encode_captions(CAPTIONS))
    torch.testing.assert_close(found, flow(noisy), rtol=0, atol=1e-5)


def test_errors_of_the_velocity_are_those_of_the_flow(teacher: Teacher) -> None:
    latents, noise = randn(*teacher.latent_shape), randn(3, *teacher.latent_shape, seed=1)
    captions = teacher.encode_captions(CAPTIONS[:2])
    asked = (latents[None], captions[None], TIMESTEPS[None], noise[None])
    (by_velocity,) = denoising_errors(teacher, *asked, batch_size=6, error_of="velocity")
    (by_noise,) = denoising_errors(teacher, *asked, batch_size=6, error_of="epsilon")
    signal = teacher.levels[TIMESTEPS].signal.flatten()
    noisy = teacher.add_noise(latents.expand_as(noise), noise, TIMESTEPS)
    for n, caption in enumerate(captions):
        with torch.no_grad():
            flow = teacher.velocity_pred(noisy, TIMESTEPS, caption.expand(3, -1, -1))
        expected = (flow - (noise - latents)).square().mean(dim=(1, 2, 3))
        torch.testing.assert_close(by_velocity[n], expected)
        torch.testing.assert_close(by_noise[n], expected * signal.square(), rtol=1e-3, atol=1e-5)


def test_guidance_is_that_of_the_family(folder: Path, teacher: Teacher) -> None:
    noisy, captions = randn(3, *teacher.latent_shape), teacher.encode_captions(CAPTIONS)
    guided = load(folder, guidance=3.5).velocity_pred(noisy, TIMESTEPS, captions)
    if folder.name == "flux":  # the scale is an input
        times = 1000 * teacher.levels[TIMESTEPS].noise.flatten()
        expected = teacher.family.output(
            teacher.denoiser, noisy, times, captions, resolution_px=64, guidance=3.5
        )
        assert not torch.allclose(expected, teacher.velocity_pred(noisy, TIMESTEPS, captions))
    else:
        without = teacher.velocity_pred(noisy, TIMESTEPS, teacher.encode_captions([""] * 3))
        under = teacher.velocity_pred(noisy, TIMESTEPS, captions)
        expected = without + 3.5 * (under - without)
    torch.testing.assert_close(guided, expected, rtol=0, atol=1e-5)


def test_a_flux_without_an_input_for_guidance_has_the_usual_one(tmp_path: Path) -> None:
    folder = save_flux_teacher(tmp_path / "t", guidance_embeds=False)
    teacher = load(folder)
    noisy, captions = randn(3, 4, 8, 8), teacher.encode_captions(CAPTIONS)
    without = teacher.velocity_pred(noisy, TIMESTEPS, teacher.encode_captions([""] * 3))
    under = teacher.velocity_pred(noisy, TIMESTEPS, captions)
    guided = load(folder, guidance=2.0).velocity_pred(noisy, TIMESTEPS, captions)
    torch.testing.assert_close(guided, without + 2.0 * (under - without), rtol=0, atol=1e-5)


def test_a_scheduler_of_sd3_may_shift_by_the_image_s_size(tmp_path: Path) -> None:
    folder = save_sd3_teacher(
        tmp_path / "t", use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=64
    )
    own = StableDiffusion3Pipeline.from_pretrained(str(folder), use_safetensors=True)
    own.set_progress_bar_config(disable=True)
    calls = network_calls(own, own.transformer, guidance_scale=1.0)
    sigmas = load(folder).levels.noise.flatten()
    times = [float(given["timestep"][0]) / 1000 for given, _ in calls]
    assert times[0] == pytest.approx(float(sigmas[-1]), rel=1e-5)
    # The second one of three steps is at 500.5 of 1000 before the shift, and the level 499 at 500.
    assert float(sigmas[499]) < times[1] < float(sigmas[500])
    assert times[1] != pytest.approx(0.5, abs=0.05)


def test_a_condition_has_no_pooled_vector(teacher: Teacher) -> None:
    check_condition(teacher, 32)


def test_images_become_the_latents_of_the_pipeline_s_vae(teacher: Teacher, pipeline: Any) -> None:
    check_latents(teacher, pipeline)


def test_gradient_of_l_sds_is_its_finite_difference(folder: Path) -> None:
    check_gradient(folder)


def test_captions_are_kept_with_their_pooled_vector(folder: Path, tmp_path: Path) -> None:
    check_cache(folder, tmp_path)


def test_low_precision_is_near(folder: Path, teacher: Teacher) -> None:
    check_low_precision(folder, teacher)


def test_checkpointing_changes_no_number(folder: Path, teacher: Teacher) -> None:
    def gradient(teacher: Teacher) -> Tensor:
        noisy = randn(3, *teacher.latent_shape).requires_grad_()
        noise_pred = teacher.noise_pred(noisy, TIMESTEPS, teacher.encode_captions(CAPTIONS))
        return torch.autograd.grad(noise_pred.square().sum(), noisy)[0]

    checkpointed = load(folder)
    checkpointed.enable_activation_checkpointing()
    assert torch.equal(gradient(checkpointed), gradient(teacher))


def test_flux_s_own_side_is_that_of_its_pipeline(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["flux"], tmp_path / "t"))
    config = json.loads((folder / "transformer/config.json").read_text())
    config.pop("sample_size")
    (folder / "transformer/config.json").write_text(json.dumps(config))
    teacher = load(folder)
    assert (teacher.latent_shape, teacher.resolution_px) == ((4, 128, 128), 1024)


@pytest.mark.parametrize(
    ("name", "file", "changes", "reason"),
    [
        ("sd3", "scheduler/scheduler_config.json", {"_class_name": "DDIMScheduler"}, "sigmas of a flow.*mixes"),
        ("sd3", "model_index.json", {"scheduler": [None, None]}, "without scheduler"),
        ("sd3", "model_index.json", {"text_encoder_2": [None, None]}, "without text_encoder_2"),
        ("sd3", "model_index.json", {"tokenizer_3": [None, None]}, "without tokenizer_3"),
        ("sd3", "transformer/config.json", {"_class_name": "FluxTransformer2DModel"}, "mixes families"),
        ("sd3", "transformer/config.json", {"in_channels": 33}, "inpainting"),
        ("flux", "transformer/config.json", {"in_channels": 96, "out_channels": 16}, "inpainting"),
        ("flux", "scheduler/scheduler_config.json", {"use_dynamic_shifting": False}, "schnell"),
        ("flux", "scheduler/scheduler_config.json", {"_class_name": "FlowMatchHeunDiscreteScheduler"}, "mixes"),
        ("flux", "scheduler/scheduler_config.json", {"base_image_seq_len": 8, "max_image_seq_len": 8}, "not that of a"),
        ("flux", "scheduler/scheduler_config.json", {"base_shift": "x"}, "not that of a flow"),
        ("sd3", "scheduler/scheduler_config.json", {"shift": 0.0}, "not that of a flow"),
        ("sd3", "scheduler/scheduler_config.json", {"shift": -1.0}, "not that of a flow"),
        ("sd3", "scheduler/scheduler_config.json", {"shift": float("nan")}, "not that of a flow"),
        ("sd3", "scheduler/scheduler_config.json", {"shift": float("inf")}, "not that of a flow"),
        ("sd3", "scheduler/scheduler_config.json", {"invert_sigmas": True}, "invert_sigmas must be false"),
        ("flux", "transformer/config.json", {"sample_size": 7}, "has 7 as sample_size.* that is even"),
        ("flux", "transformer/config.json", {"sample_size": 0}, "has 0 as sample_size"),
        ("flux", "transformer/config.json", {"in_channels": None}, "None as in_channels"),
        ("sd3", "transformer/config.json", {"sample_size": 10**6}, "has 1000000 as sample_size.*at most"),
        ("sd3", "transformer/config.json", {"joint_attention_dim": None}, "None as joint_attention_dim"),
        ("sd3", "transformer/config.json", {"pooled_projection_dim": "64"}, "'64' as pooled_projection_dim"),
        ("flux", "text_encoder_2/config.json", {"model_type": "clip_text_model"}, "mixes families"),
    ],
)  # fmt: skip
def test_other_folders_are_refused_by_name(
    name: str, file: str, changes: dict[str, Any], reason: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders[name], tmp_path / "t"))
    edited = folder / file
    edited.write_text(json.dumps({**json.loads(edited.read_text()), **changes}))
    with pytest.raises(TeacherError, match=reason):
        load(folder)


def test_a_transformer_with_the_scheduler_of_a_noise_schedule_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folders["sd3"], tmp_path / "t"))
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(TeacherError, match=r"scheduler_config\.json is missing"):
        load(folder)
    DDIMScheduler().save_pretrained(folder / "scheduler")
    with pytest.raises(TeacherError, match=r"scheduler is a DDIMScheduler.*mixes families"):
        load(folder)


def test_a_t5_without_its_sentencepiece_model_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["flux"], tmp_path / "t"))
    (folder / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(TeacherError, match=r"tokenizer_2 has neither spiece\.model"):
        load(folder)
