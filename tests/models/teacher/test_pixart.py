"""PixArt as a teacher, against diffusers' own pipelines on small random folders."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtAlphaPipeline, PixArtSigmaPipeline
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from torch import Tensor

from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher.teacher import Teacher
from tests.models.teacher.pipelines import TIMESTEPS, check_cache, check_gradient, check_latents, load, randn
from tests.teachers import noise_by_scheduler, save_pixart_teacher

CAPTIONS = ["A red cube, left of a blue ball ", "", "long " * 100]
Pipeline = PixArtAlphaPipeline | PixArtSigmaPipeline


@pytest.fixture(scope="module")
def alpha_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pixart_teacher(tmp_path_factory.mktemp("pixart") / "alpha")


@pytest.fixture(scope="module")
def sigma_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the demo's teacher: no variance, the velocity, patches of one latent."""
    return save_pixart_teacher(
        tmp_path_factory.mktemp("pixart") / "sigma",
        pipeline=PixArtSigmaPipeline,
        prediction_type="v_prediction",
        transformer={"out_channels": 4, "patch_size": 1},
        seed=1,
    )


@pytest.fixture(scope="module", params=["alpha", "sigma"])
def folder(request: pytest.FixtureRequest, alpha_folder: Path, sigma_folder: Path) -> Path:
    return alpha_folder if request.param == "alpha" else sigma_folder


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Teacher:
    return load(folder, vae=True)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> Pipeline:
    kind = PixArtAlphaPipeline if folder.name == "alpha" else PixArtSigmaPipeline
    own: Pipeline = kind.from_pretrained(str(folder), use_safetensors=True)
    own.set_progress_bar_config(disable=True)
    return own


def test_captions_and_their_mask_are_those_of_the_pipeline(teacher: Teacher, pipeline: Pipeline) -> None:
    embeddings, mask, without, without_mask = pipeline.encode_prompt(CAPTIONS, device="cpu")
    found = teacher.encode_captions(CAPTIONS)

    assert found.shape == (3, 120 if isinstance(pipeline, PixArtAlphaPipeline) else 300, 33)
    torch.testing.assert_close(found[..., :-1], embeddings, rtol=0, atol=1e-5)
    assert torch.equal(found[..., -1], mask.float())
    torch.testing.assert_close(found[1, :, :-1], without[0], rtol=0, atol=1e-5)
    assert torch.equal(found[1, :, -1], without_mask[0].float())


def test_the_network_is_called_as_by_the_pipeline(teacher: Teacher, pipeline: Pipeline) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def see(
        _: object, inputs: tuple[Tensor, ...], options: dict[str, Tensor], outputs: tuple[Tensor]
    ) -> None:
        calls.append((inputs[0], options["timestep"], outputs[0]))

    handle = pipeline.transformer.register_forward_hook(see, with_kwargs=True)
    pipeline(
        CAPTIONS[0], height=64, width=64, num_inference_steps=3, guidance_scale=1.0,
        use_resolution_binning=False, clean_caption=False, output_type="latent",
    )  # fmt: skip
    handle.remove()

    assert len(calls) == 3
    captions = teacher.encode_captions(CAPTIONS[:1])
    for noisy, timesteps, output in calls:
        found = teacher.family.output(teacher.denoiser, noisy, timesteps, captions, resolution_px=64)
        torch.testing.assert_close(found, output[:, :4], rtol=0, atol=1e-5)


def test_predicted_noise_is_that_of_the_pipeline_s_scheduler(teacher: Teacher, pipeline: Pipeline) -> None:
    latents, noise, captions = randn(3, 4, 8, 8), randn(3, 4, 8, 8, seed=1), teacher.encode_captions(CAPTIONS)
    noisy = teacher.add_noise(latents, noise, TIMESTEPS)
    torch.testing.assert_close(noisy, pipeline.scheduler.add_noise(latents, noise, TIMESTEPS))
    with torch.no_grad():
        output = pipeline.transformer(
            noisy, captions[..., :-1], TIMESTEPS, encoder_attention_mask=captions[..., -1]
        ).sample[:, :4]
    noise_pred = teacher.noise_pred(noisy, TIMESTEPS, captions)
    expected = noise_by_scheduler(pipeline.scheduler, output, noisy, TIMESTEPS)
    torch.testing.assert_close(noise_pred, expected, rtol=1e-3, atol=1e-4)


def test_padding_of_a_caption_changes_nothing(teacher: Teacher) -> None:
    noisy, captions = randn(3, 4, 8, 8), teacher.encode_captions(CAPTIONS)
    padding = captions[..., -1:] == 0
    other = torch.where(padding & (torch.arange(33) < 32), randn(*captions.shape, seed=3), captions)

    assert not torch.equal(other, captions)
    expected = teacher.noise_pred(noisy, TIMESTEPS, captions)
    torch.testing.assert_close(teacher.noise_pred(noisy, TIMESTEPS, other), expected, rtol=0, atol=1e-6)


def test_models_of_1024_pixels_are_told_the_size_of_the_image(tmp_path: Path) -> None:
    folder = save_pixart_teacher(
        # Their embedding of sizes takes a third of the width.
        tmp_path / "t",
        transformer={"use_additional_conditions": True, "attention_head_dim": 24, "cross_attention_dim": 48},
    )
    teacher = load(folder)
    noisy, captions = randn(3, 4, 8, 8), teacher.encode_captions(CAPTIONS)
    own = PixArtAlphaPipeline.from_pretrained(str(folder), use_safetensors=True).transformer
    with torch.no_grad():
        expected = own(
            noisy, captions[..., :-1], TIMESTEPS, encoder_attention_mask=captions[..., -1],
            added_cond_kwargs={"resolution": torch.tensor([[64.0, 64.0]] * 3), "aspect_ratio": torch.ones(3, 1)},
        ).sample[:, :4]  # fmt: skip
    torch.testing.assert_close(teacher.noise_pred(noisy, TIMESTEPS, captions), expected, rtol=0, atol=1e-5)


def test_guidance_extrapolates_from_the_prediction_without_caption(folder: Path, teacher: Teacher) -> None:
    noisy, captions = randn(3, 4, 8, 8), teacher.encode_captions(CAPTIONS)
    without = teacher.noise_pred(noisy, TIMESTEPS, teacher.encode_captions([""] * 3))
    under = teacher.noise_pred(noisy, TIMESTEPS, captions)
    guided = load(folder, guidance=3.0).noise_pred(noisy, TIMESTEPS, captions)
    torch.testing.assert_close(guided, without + 3.0 * (under - without), rtol=0, atol=1e-5)


def test_images_become_the_latents_of_the_pipeline_s_vae(teacher: Teacher, pipeline: Pipeline) -> None:
    check_latents(teacher, pipeline)


def test_gradient_of_l_sds_is_its_finite_difference(folder: Path) -> None:
    check_gradient(folder)


def test_captions_are_kept_with_their_mask(folder: Path, tmp_path: Path) -> None:
    check_cache(folder, tmp_path, CAPTIONS)


def test_checkpointing_changes_no_number(folder: Path) -> None:
    def gradient(teacher: Teacher) -> Tensor:
        noisy = randn(3, 4, 8, 8).requires_grad_()
        noise_pred = teacher.noise_pred(noisy, TIMESTEPS, teacher.encode_captions(CAPTIONS))
        return torch.autograd.grad(noise_pred.square().sum(), noisy)[0]

    checkpointed = load(folder)
    checkpointed.enable_activation_checkpointing()
    assert torch.equal(gradient(checkpointed), gradient(load(folder)))


def test_low_precision_holds_t5_in_bfloat16(folder: Path, teacher: Teacher) -> None:
    low = load(folder, precision="bfloat16")
    noisy, captions = randn(3, 4, 8, 8), low.encode_captions(CAPTIONS)
    assert captions.dtype is low.text_encoders["text_encoder"].dtype is low.denoiser.dtype is torch.bfloat16
    assert teacher.family.text_dtype("text_encoder", torch.float16) is torch.bfloat16
    expected = teacher.noise_pred(noisy, TIMESTEPS, teacher.encode_captions(CAPTIONS))
    torch.testing.assert_close(low.noise_pred(noisy, TIMESTEPS, captions), expected, rtol=0.05, atol=0.05)


def test_each_pipeline_has_a_version_of_its_own(alpha_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(alpha_folder, tmp_path / "t"))
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("PixArtAlphaPipeline", "PixArtSigmaPipeline"))
    assert load(folder).version != load(alpha_folder).version  # it cuts captions elsewhere


@pytest.mark.parametrize(
    ("file", "changes", "reason"),
    [
        (
            "model_index.json",
            {"transformer": ["diffusers", "SD3Transformer2DModel"]},
            "T5EncoderModel, not a CLIPTextModelWithProjection",
        ),
        ("model_index.json", {"text_encoder": ["transformers", "CLIPTextModel"]}, "not a T5EncoderModel"),
        ("transformer/config.json", {"_class_name": "SD3Transformer2DModel"}, "mixes families"),
        ("text_encoder/config.json", {"model_type": "clip_text_model"}, "mixes families"),
        ("model_index.json", {"scheduler": [None, None]}, "without scheduler"),
        ("transformer/config.json", {"out_channels": 5}, "gives 5"),
        ("transformer/config.json", {"sample_size": None}, "sample_size"),
    ],
)
def test_what_is_no_pixart_is_refused(
    alpha_folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], reason: str
) -> None:
    folder = Path(shutil.copytree(alpha_folder, tmp_path / "t"))
    config = folder / file
    config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    with pytest.raises(TeacherError, match=reason):
        load(folder)


def test_parts_of_different_models_are_refused(tmp_path: Path) -> None:
    folder = save_pixart_teacher(tmp_path / "t", transformer={"caption_channels": 16})
    with pytest.raises(TeacherError, match="width 16"):
        load(folder)


def test_sentencepiece_model_of_published_folders_is_read(alpha_folder: Path, tmp_path: Path) -> None:
    """They hold spiece.model and no tokenizer.json."""
    texts = tmp_path / "texts.txt"
    texts.write_text("a red cube left of a blue ball\nthe green star above a small square\n" * 50)
    folder = Path(shutil.copytree(alpha_folder, tmp_path / "t"))
    (folder / "tokenizer" / "tokenizer.json").unlink()
    SentencePieceTrainer.train(
        input=str(texts), model_prefix=str(folder / "tokenizer" / "spiece"), vocab_size=40, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    expected = SentencePieceProcessor(str(folder / "tokenizer" / "spiece.model")).encode("a red cube")

    teacher = load(folder)
    assert teacher.tokenizers["text_encoder"]("a red cube").input_ids == [*expected, 1]
    assert teacher.encode_captions(["a red cube"])[..., -1].sum() == len(expected) + 1


def test_a_t5_s_folder_without_its_sentencepiece_model_is_refused(alpha_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(alpha_folder, tmp_path / "t"))
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(TeacherError, match=r"tokenizer has neither spiece\.model, the sentencepiece model"):
        load(folder)


def test_the_old_name_of_its_class_in_published_folders_is_read(alpha_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(alpha_folder, tmp_path / "t"))
    for file, changes in {
        "model_index.json": {"transformer": ["diffusers", "Transformer2DModel"]},
        "transformer/config.json": {"_class_name": "Transformer2DModel", "double_self_attention": False},
    }.items():
        config = folder / file
        config.write_text(json.dumps({**json.loads(config.read_text()), **changes}))
    teacher, expected, noisy = load(folder), load(alpha_folder), randn(3, 4, 8, 8)
    captions = expected.encode_captions(CAPTIONS)
    own = PixArtAlphaPipeline.from_pretrained(str(folder), use_safetensors=True)
    assert type(own.transformer) is type(teacher.denoiser)
    found = teacher.noise_pred(noisy, TIMESTEPS, captions)
    assert torch.equal(found, expected.noise_pred(noisy, TIMESTEPS, captions))
