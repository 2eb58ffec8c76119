"""What a GPU computes is what the CPU computes. Without a GPU, a pretended one shows whether tensors of both meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from sds_clip.models.checkpoints.delta import lay_over
from sds_clip.models.checkpoints.delta_file import read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.golden import TOLERANCE, Golden
from sds_clip.models.clip.mixed import as_member, encode_images, encode_texts
from sds_clip.models.data.check import check_pairs
from sds_clip.models.data.open import open_pairs
from sds_clip.models.teacher.diffusion_score import draws, image_errors
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.processes import Rank
from sds_clip.models.training.run import train
from tests.checkpoints import save_resnet, save_siglip, save_tiny_clip
from tests.deltas import save_tuned
from tests.pretended_gpu import pretended_gpu
from tests.teachers import (
    save_flux_teacher,
    save_pixart_teacher,
    save_sd3_teacher,
    save_sd_teacher,
    save_sdxl_teacher,
)
from tests.training import PLACE, configure, gradients, save_coco, state_after

REAL = pytest.param(
    "real",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")],
)
CLIPS = {"clip": save_tiny_clip, "siglip": save_siglip, "resnet": save_resnet}
TEACHERS: dict[str, Callable[[Path], Path]] = {
    "stable diffusion": save_sd_teacher,
    "sdxl": save_sdxl_teacher,
    "sd3": save_sd3_teacher,
    "flux": save_flux_teacher,
    "pixart": save_pixart_teacher,
}
SWAPS = {"negatives": "swap", "negatives_count": 2}
RUNS: dict[str, dict[str, object]] = {
    "sds-clip": {"mapper_start": "ridge", "ridge_images": 8, "guidance": 2.0},
    "past the U-Net": {"gradient": "sds", "micro_batch_size": 4, "activation_checkpointing": True},
    "condition": {"objective": "condition"},
    "noise-contrast": {"objective": "noise-contrast", "conflicts": "project"},
    "score": {"objective": "score", "score_draws": 2, **SWAPS},
    "score by the base": {"objective": "score", "score_by": "base", **SWAPS},
    "text-map": {"objective": "clip", "trainable": "text-map", **SWAPS},
    "all parameters": {"objective": "clip", "trainable": "all"},
}


@pytest.fixture(params=["pretended", REAL])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the device. Its convolutions are exact, as they are not by torch's default."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    if request.param == "real":
        yield "cuda"
        return
    with pretended_gpu(monkeypatch):
        yield "cuda"


def test_tensors_of_a_pretended_gpu_do_not_meet_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpu(monkeypatch):
        there = torch.ones(2, 3, device="cuda")
        assert (there.device.type, there.sum().item()) == ("cuda", 6)
        with pytest.raises(RuntimeError, match="meet"):
            there + torch.ones(2, 3)
        with pytest.raises(RuntimeError, match="meet"):
            torch.arange(3)[torch.tensor([0, 1], device="cuda")]
        with pytest.raises(RuntimeError, match="generator of the CPU"):
            there.uniform_(generator=torch.Generator())
        with pytest.raises(TypeError, match=r"Tensor\.cpu"):
            there.numpy()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("kind", CLIPS)
def test_features_of_a_gpu_are_those_of_the_cpu(kind: str, precision: str, gpu: str, tmp_path: Path) -> None:
    folder = CLIPS[kind](tmp_path / "clip")
    golden = Golden.of(load_clip(f"local-dir:{folder}", device="cpu", precision="float32"))
    assert (
        golden.angle(load_clip(f"local-dir:{folder}", device=gpu, precision=precision)) < TOLERANCE[precision]
    )


def test_versions_in_a_batch_of_a_gpu_answer_as_alone(gpu: str, tmp_path: Path) -> None:
    reference = f"local-dir:{save_tiny_clip(tmp_path / 'clip')}"
    whole = load_clip(reference, device="cpu", precision="float32")
    deltas = [save_tuned(tmp_path / str(seed), whole, seed=seed) for seed in range(2)]
    base = as_member(load_clip(reference, device=gpu, precision="float32"))
    versions = [base, *(lay_over(base, read_delta(delta)) for delta in deltas)]
    pixels, tokens = torch.randn(3, 3, *base.image_size), base.tokenizer(["a red cube", "a dog", "two"])
    images, texts = encode_images(versions, pixels), encode_texts(versions, tokens)
    for row, clip in enumerate(versions):
        alone = clip.encode_image(pixels[row : row + 1], normalize=False)[0]
        torch.testing.assert_close(images[row].cpu(), alone.cpu(), rtol=1e-4, atol=1e-5)
        alone = clip.encode_text(tokens[row : row + 1], normalize=False)[0]
        torch.testing.assert_close(texts[row].cpu(), alone.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", TEACHERS)
def test_diffusion_score_of_a_gpu_is_that_of_the_cpu(kind: str, gpu: str, tmp_path: Path) -> None:
    folder = str(TEACHERS[kind](tmp_path / "teacher"))
    images, captions = (
        [Image.effect_noise((70, 64), spread).convert("RGB") for spread in (20, 80)],
        ["a", "b c"],
    )

    def scored(device: str) -> torch.Tensor:
        teacher = load_teacher(folder, device=device, precision="float32", vae=True)
        return image_errors(
            teacher, images, captions, draws(3, teacher.latent_shape, teacher.timesteps, seed=0)
        )

    torch.testing.assert_close(scored(gpu), scored("cpu"), rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", TEACHERS)
def test_offloaded_teacher_has_only_what_computes_on_the_gpu(kind: str, gpu: str, tmp_path: Path) -> None:
    folder = str(TEACHERS[kind](tmp_path / "teacher"))
    offloaded, whole = (
        load_teacher(folder, device=gpu, precision="float32", vae=True, offload=offload)
        for offload in (True, False)
    )

    def on_gpu(teacher: Teacher) -> list[bool]:
        parts = teacher.denoiser, teacher.vae, *teacher.text_encoders.values()
        return [next(part.parameters()).device.type == "cuda" for part in parts]

    assert not any(on_gpu(offloaded))
    pixels = torch.rand(2, 3, whole.resolution_px, whole.resolution_px) * 2 - 1
    found = [
        (teacher.encode_captions(["a red cube", "a dog"]), teacher.encode_image(pixels))
        for teacher in (offloaded, whole)
    ]
    assert not any(on_gpu(offloaded))
    predicted = []
    for teacher, (captions, latents) in zip((offloaded, whole), found, strict=True):
        times = torch.tensor([10, 500]).to(gpu)
        predicted.append((captions, latents, teacher.noise_pred(latents, times, captions)))
    for own, expected in zip(*predicted, strict=True):
        torch.testing.assert_close(own, expected, rtol=0, atol=0)
    assert on_gpu(offloaded)[0]
    assert not any(on_gpu(offloaded)[1:])
    assert all(on_gpu(whole))


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_run_on_a_gpu_trains_as_on_the_cpu_and_is_resumed(run: str, gpu: str, tmp_path: Path) -> None:
    clip, teacher = save_tiny_clip(tmp_path / "clip"), save_sd_teacher(tmp_path / "teacher")
    pairs = check_pairs(open_pairs(save_coco(tmp_path / "coco")), workers=1).pairs

    def trained(device: str, rank: Rank, steps: tuple[int, ...]) -> Path:
        parts = Parts(
            load_clip(f"local-dir:{clip}", device=device, precision="float32"),
            pairs,
            load_teacher(str(teacher), device=device, precision="float32", vae=True),
            pairs,
        )
        options = {"steps": 2, "save_every": 1, "keep_checkpoints": 2, "log_every": 1, **RUNS[run]}
        config = configure(teacher_precision="float32", device=device, **options)
        out = tmp_path / device
        for step in steps:
            (out / "checkpoints" / f"step-{step:08d}").rename(tmp_path / f"forgotten {step}")
        train(config, parts, out, rank, resume=bool(steps))
        return out

    there = Rank(torch.device(gpu), 0, 1)
    expected, found = trained("cpu", PLACE, ()), trained(gpu, there, ())
    first = gradients(state_after(1, expected))
    for name, value in gradients(state_after(1, found)).items():
        torch.testing.assert_close(value, first[name], rtol=1e-3, atol=1e-5)
    found.joinpath("delta").rename(tmp_path / "forgotten delta")
    assert trained(gpu, there, (2,)).joinpath("delta").is_dir()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_on_a_gpu_gives_nearly_the_gradients_of_float32(
    precision: str, tmp_path: Path
) -> None:
    clip, teacher = save_tiny_clip(tmp_path / "clip"), save_sd_teacher(tmp_path / "teacher")
    pairs = check_pairs(open_pairs(save_coco(tmp_path / "coco")), workers=1).pairs
    found = []
    for name in ("float32", precision):
        parts = Parts(
            load_clip(f"local-dir:{clip}", device="cuda", precision="float32"),
            pairs,
            load_teacher(str(teacher), device="cuda", precision=name, vae=True),
        )
        student = "bfloat16" if name != "float32" else name
        config = configure(steps=1, device="cuda", teacher_precision=name, precision=student)
        train(config, parts, tmp_path / name, Rank(torch.device("cuda"), 0, 1))
        state = gradients(state_after(1, tmp_path / name))
        found.append(torch.cat([state[each].flatten() for each in sorted(state)]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.98
