import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from time import sleep
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.pixels import teacher_preprocess
from sds_clip.models.teacher.teacher import Teacher
from tests.teachers import CONTEXT_LENGTH, noise_by_scheduler, save_sd_teacher

CAPTIONS = ["a red cube left of a blue ball", "", "long " * CONTEXT_LENGTH]
TIMESTEPS = torch.tensor([3, 500, 999])


@pytest.fixture(scope="session")
def pipeline(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(str(folder), use_safetensors=True)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_image(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_captions_are_embedded_as_the_pipeline_does(
    teacher: Teacher, pipeline: StableDiffusionPipeline
) -> None:
    expected, unconditional = pipeline.encode_prompt(CAPTIONS, "cpu", 1, True)
    embeddings = teacher.encode_captions(CAPTIONS)
    torch.testing.assert_close(embeddings, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(embeddings[1], unconditional[0], rtol=0, atol=1e-6)
    assert not embeddings.requires_grad


def test_a_caption_s_embedding_does_not_depend_on_its_company(teacher: Teacher) -> None:
    captions = [f"a cube {number}" for number in range(13)]
    together = teacher.encode_captions([*captions, captions[4]])
    for number in (0, 4, 12):
        assert torch.equal(teacher.encode_captions([captions[number]])[0], together[number])
    assert torch.equal(together[13], together[4])


def test_one_thread_at_a_time_is_in_the_tokenizer(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    class Watched:
        model_max_length = CONTEXT_LENGTH
        free = Lock()

        def __call__(self, captions: list[str], **options: Any) -> Any:
            assert self.free.acquire(blocking=False)
            sleep(0.01)  # so that another thread would come meanwhile
            self.free.release()
            return tokenizer(captions, **options)

    tokenizer = teacher.tokenizers["text_encoder"]
    monkeypatch.setitem(teacher.tokenizers, "text_encoder", Watched())
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda number: teacher.encode_captions([f"a cube {number}"]), range(4)))


def test_captions_are_embedded_from_many_threads_at_once(teacher: Teacher) -> None:
    captions = [f"a cube {number}" for number in range(24)]
    expected = teacher.encode_captions(captions)
    with ThreadPoolExecutor(max_workers=8) as pool:
        embedded = list(pool.map(lambda caption: teacher.encode_captions([caption])[0], captions))
    assert torch.equal(torch.stack(embedded), expected)


def test_no_captions_give_no_embeddings(teacher: Teacher) -> None:
    assert teacher.encode_captions([]).shape == (0, CONTEXT_LENGTH, 32)


def test_cached_captions_need_no_text_encoder(epsilon_folder: Path, tmp_path: Path) -> None:
    expected = load(epsilon_folder, caption_cache=tmp_path).encode_captions(CAPTIONS)
    again = load(epsilon_folder, caption_cache=tmp_path)
    again.text_encoders.clear()
    assert torch.equal(again.encode_captions(CAPTIONS), expected)


def test_predicted_noise_is_that_of_the_pipeline_s_own_parts(
    teacher: Teacher, pipeline: StableDiffusionPipeline
) -> None:
    latents, noise, captions = randn(3, 4, 8, 8), randn(3, 4, 8, 8, seed=1), teacher.encode_captions(CAPTIONS)
    noisy = teacher.add_noise(latents, noise, TIMESTEPS)
    torch.testing.assert_close(noisy, pipeline.scheduler.add_noise(latents, noise, TIMESTEPS))
    noise_pred = teacher.noise_pred(noisy, TIMESTEPS, captions)
    with torch.no_grad():
        output = pipeline.unet(noisy, TIMESTEPS, captions).sample
    expected = noise_by_scheduler(pipeline.scheduler, output, noisy, TIMESTEPS)
    torch.testing.assert_close(noise_pred, expected, rtol=1e-3, atol=1e-4)


def test_stable_diffusion_2_s_settings_are_taken_as_by_the_pipeline(tmp_path: Path) -> None:
    settings = {"attention_head_dim": [2, 4], "use_linear_projection": True, "upcast_attention": True}
    save_sd_teacher(tmp_path, prediction_type="v_prediction", unet=settings)
    config = (
        tmp_path / "tokenizer/tokenizer_config.json"
    )  # OpenCLIP's padding is token 0, an exclamation mark
    config.write_text(json.dumps({**json.loads(config.read_text()), "pad_token": "!"}))
    teacher, own = (
        load(tmp_path),
        StableDiffusionPipeline.from_pretrained(str(tmp_path), use_safetensors=True),
    )
    assert own.tokenizer.pad_token_id == 0
    captions = teacher.encode_captions(CAPTIONS)
    torch.testing.assert_close(captions, own.encode_prompt(CAPTIONS, "cpu", 1, False)[0], rtol=0, atol=1e-6)
    noisy, abar = randn(3, 4, 8, 8), own.scheduler.alphas_cumprod[TIMESTEPS][:, None, None, None]
    with torch.no_grad():
        velocity = own.unet(noisy, TIMESTEPS, captions).sample
    expected = abar.sqrt() * velocity + (1 - abar).sqrt() * noisy
    torch.testing.assert_close(teacher.noise_pred(noisy, TIMESTEPS, captions), expected)


def test_guidance_extrapolates_from_the_prediction_without_caption(folder: Path, teacher: Teacher) -> None:
    noisy, captions = randn(3, 4, 8, 8), teacher.encode_captions(CAPTIONS)
    without = teacher.noise_pred(noisy, TIMESTEPS, teacher.encode_captions([""] * 3))
    under = teacher.noise_pred(noisy, TIMESTEPS, captions)
    guided = load(folder, guidance=3.0).noise_pred(noisy, TIMESTEPS, captions)
    torch.testing.assert_close(guided, without + 3.0 * (under - without), rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_predicted_velocity_agrees_with_the_predicted_noise(v_folder: Path, guidance: float | None) -> None:
    teacher = load(v_folder, guidance=guidance)
    noisy, captions = randn(3, 4, 8, 8), teacher.encode_captions(CAPTIONS)
    noise_pred = teacher.noise_pred(noisy, TIMESTEPS, captions)
    abar = teacher.levels.signal_power[TIMESTEPS][:, None, None, None]
    expected = (noise_pred - (1 - abar).sqrt() * noisy) / abar.sqrt()
    found = teacher.velocity_pred(noisy, TIMESTEPS, captions)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_gradients_reach_the_latents_and_no_weight(teacher: Teacher) -> None:
    noisy = randn(3, 4, 8, 8).requires_grad_()
    teacher.noise_pred(noisy, TIMESTEPS, teacher.encode_captions(CAPTIONS)).square().sum().backward()
    assert noisy.grad is not None
    assert noisy.grad.abs().sum() > 0
    for part in (teacher.denoiser, teacher.text_encoders["text_encoder"], teacher.vae):
        assert not part.training
        assert all(not weight.requires_grad and weight.grad is None for weight in part.parameters())


def test_gradient_of_the_predicted_noise_is_its_finite_difference(epsilon_folder: Path) -> None:
    teacher = load(epsilon_folder)
    teacher.denoiser.double()
    teacher.dtype = torch.float64
    captions = teacher.encode_captions(["a red cube"])
    direction, t = randn(1, 4, 8, 8, seed=2), torch.tensor([400])
    noisy = randn(1, 4, 8, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(teacher.noise_pred(noisy, t, captions).square().sum(), noisy)
    step = 1e-3
    with torch.no_grad():
        above, below = (
            teacher.noise_pred(noisy + sign * step * direction, t, captions).double().square().sum()
            for sign in (1, -1)
        )
    expected = float((above - below) / (2 * step))
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-3)


def test_bfloat16_u_net_takes_and_gives_float32(folder: Path, teacher: Teacher) -> None:
    low = load(folder, precision="bfloat16")
    noisy = randn(3, 4, 8, 8)
    captions = low.encode_captions(CAPTIONS)
    noise_pred = low.noise_pred(noisy, TIMESTEPS, captions)
    assert captions.dtype is low.denoiser.dtype is torch.bfloat16
    assert low.levels.signal_power.dtype is noise_pred.dtype is torch.float32
    expected = teacher.noise_pred(noisy, TIMESTEPS, teacher.encode_captions(CAPTIONS))
    torch.testing.assert_close(noise_pred, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("guidance", [None, 3.0])
def test_float16_u_net_carries_the_gradient_of_a_mean_over_a_large_batch(
    folder: Path, guidance: float | None, checkpointing: bool
) -> None:
    def gradients(teacher: Teacher) -> tuple[Tensor, ...]:
        noisy = randn(3, 4, 8, 8).requires_grad_()
        captions = teacher.encode_captions(CAPTIONS).float().requires_grad_()
        noise_pred = teacher.noise_pred(noisy, TIMESTEPS, captions)
        # 32 latents of Stable Diffusion have 2^19 elements.
        return torch.autograd.grad(noise_pred.square().sum() / 2**19, [noisy, captions])

    half = load(folder, guidance=guidance)
    half.denoiser.half()  # the loader has float16 on a GPU alone
    half.dtype = torch.float16
    if checkpointing:
        half.enable_activation_checkpointing()
    for found, expected in zip(gradients(half), gradients(load(folder, guidance=guidance)), strict=True):
        assert (found - expected).norm() < 0.02 * expected.norm()


def test_a_caller_s_autocast_changes_nothing(teacher: Teacher) -> None:
    def run() -> list[Tensor]:
        captions = teacher.encode_captions(CAPTIONS)
        noise_pred = teacher.noise_pred(randn(3, 4, 8, 8), TIMESTEPS, captions)
        return [captions, noise_pred, teacher.encode_image(randn(1, 3, 64, 64).clamp(-1, 1))]

    expected = run()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(value, same) for value, same in zip(run(), expected, strict=True))


def test_images_become_the_latents_of_the_pipeline_s_own_preprocessing(
    folder: Path, teacher: Teacher
) -> None:
    image = random_image(64)
    own = StableDiffusionImg2ImgPipeline.from_pretrained(str(folder), use_safetensors=True)
    pixels = teacher_preprocess(teacher.resolution_px)(image)[None]
    torch.testing.assert_close(pixels, own.image_processor.preprocess(image), rtol=0, atol=1e-6)
    with torch.no_grad():
        mean = own.vae.encode(own.image_processor.preprocess(image)).latent_dist.mean
    torch.testing.assert_close(teacher.encode_image(pixels), mean * own.vae.config.scaling_factor)
    assert teacher.encode_image(pixels).shape[1:] == teacher.latent_shape


def test_many_images_go_through_the_vae_a_few_at_a_time(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = randn(9, 3, 64, 64).clamp(-1, 1)
    alone = torch.cat([teacher.encode_image(image[None]) for image in pixels])
    encode, batches = teacher.vae.encode, []
    monkeypatch.setattr("sds_clip.models.teacher.teacher._CPU_PIXELS_AT_ONCE", 4 * 64**2)
    monkeypatch.setattr(teacher.vae, "encode", lambda chunk: batches.append(len(chunk)) or encode(chunk))
    torch.testing.assert_close(teacher.encode_image(pixels), alone)
    assert batches == [4, 4, 1]


def test_the_vae_s_shift_is_taken_off_before_scaling(epsilon_folder: Path) -> None:
    teacher, shifted = load(epsilon_folder, vae=True), load(epsilon_folder, vae=True)
    assert shifted.vae is not None
    shifted.vae.register_to_config(shift_factor=0.5)
    pixels = randn(1, 3, 64, 64).clamp(-1, 1)
    expected = teacher.encode_image(pixels) - 0.5 * shifted.vae.config.scaling_factor
    torch.testing.assert_close(shifted.encode_image(pixels), expected)


def test_the_vae_s_own_mean_and_deviation_normalize_as_in_diffusers(
    epsilon_folder: Path, tmp_path: Path
) -> None:
    """The pipeline's own img2img encoding, from the same folder, on the posterior's mode."""
    folder = Path(shutil.copytree(epsilon_folder, tmp_path / "t"))
    config = folder / "vae/config.json"
    stated = {"latents_mean": [-1.6, 1.1, 0.4, -0.1], "latents_std": [8.4, 0.2, 5.3, 0.05]}
    config.write_text(json.dumps({**json.loads(config.read_text()), **stated}))
    teacher, pixels = load(folder, vae=True), randn(2, 3, 64, 64).clamp(-1, 1)
    assert teacher.vae is not None
    pipeline = StableDiffusionXLImg2ImgPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=teacher.denoiser,
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"), add_watermarker=False,
    )  # fmt: skip
    pipeline.vae.encode = lambda image: SimpleNamespace(latents=teacher.vae.encode(image).latent_dist.mode())
    expected = pipeline.prepare_latents(
        pixels, None, 2, 1, torch.float32, torch.device("cpu"), add_noise=False
    )
    torch.testing.assert_close(teacher.encode_image(pixels), expected)
    deviation = (
        teacher.vae.encode(pixels).latent_dist.mode().double()
        - torch.tensor(stated["latents_mean"])[:, None, None]
    ) / torch.tensor(stated["latents_std"])[:, None, None]
    torch.testing.assert_close(
        teacher.encode_image(pixels).double(), 0.18215 * deviation, rtol=1e-5, atol=1e-6
    )


def test_images_without_vae_or_of_another_size_are_refused(epsilon_folder: Path, teacher: Teacher) -> None:
    with pytest.raises(TeacherError, match="vae=True"):
        load(epsilon_folder).encode_image(torch.zeros(1, 3, 64, 64))
    with pytest.raises(TeacherError, match="64 x 64 pixels, not 32 x 48"):
        teacher.encode_image(torch.zeros(1, 3, 32, 48))


def test_checkpointing_keeps_fewer_activations_and_changes_no_number(folder: Path) -> None:
    def measure(teacher: Teacher) -> tuple[Tensor, Tensor, int]:
        kept = 0

        def pack(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        noisy = randn(3, 4, 8, 8).requires_grad_()
        captions = teacher.encode_captions(CAPTIONS)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            noise_pred = teacher.noise_pred(noisy, TIMESTEPS, captions)
        held = kept
        (gradient,) = torch.autograd.grad(noise_pred.square().sum(), noisy)
        return noise_pred, gradient, held

    noise_pred, gradient, held = measure(load(folder))
    checkpointed = load(folder)
    checkpointed.enable_activation_checkpointing()
    same_pred, same_gradient, held_less = measure(checkpointed)
    assert torch.equal(noise_pred, same_pred)
    assert torch.equal(gradient, same_gradient)
    assert held_less < held / 2
    assert not checkpointed.denoiser.training


def test_zero_terminal_snr_predicts_finite_noise_from_pure_noise(tmp_path: Path) -> None:
    save_sd_teacher(
        tmp_path / "t", prediction_type="v_prediction", scheduler={"rescale_betas_zero_snr": True}
    )
    teacher = load(tmp_path / "t")
    last = torch.tensor([teacher.timesteps - 1])
    noise = randn(1, 4, 8, 8)
    assert torch.equal(teacher.add_noise(randn(1, 4, 8, 8, seed=1), noise, last), noise)
    # With abar = 0, eps_hat = sqrt(0) v + sqrt(1) z_T: the noise itself.
    assert torch.equal(teacher.noise_pred(noise, last, teacher.encode_captions(["a cube"])), noise)


def load(
    folder: Path,
    *,
    precision: str = "float32",
    guidance: float | None = None,
    vae: bool = False,
    caption_cache: Path | None = None,
) -> Teacher:
    return load_teacher(
        str(folder),
        device="cpu",
        precision=precision,
        guidance=guidance,
        vae=vae,
        caption_cache=caption_cache,
    )
