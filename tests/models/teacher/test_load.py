import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from sds_clip.models.clip.precision import PrecisionError
from sds_clip.models.errors import TeacherError
from sds_clip.models.teacher import folder as folders
from sds_clip.models.teacher.load import load_teacher
from tests.teachers import CONTEXT_LENGTH, save_sd_teacher

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(epsilon_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(epsilon_folder, tmp_path / "teacher"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def load(folder: Path | str, **options: Any) -> Any:
    return load_teacher(str(folder), device="cpu", **{"precision": "float32", **options})


def test_what_the_folder_states_is_the_teacher_s(v_folder: Path) -> None:
    teacher = load(v_folder)
    assert teacher.reference == f"local-dir:{v_folder}"
    assert teacher.prediction_type == "v_prediction"
    assert teacher.latent_shape == (4, 8, 8)
    assert teacher.resolution_px == 64
    assert teacher.timesteps == 1000
    assert teacher.guidance is None
    assert teacher.vae is None
    assert load(v_folder, vae=True).vae is not None


def test_abar_is_the_product_of_the_schedule_s_alphas(epsilon_folder: Path) -> None:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, dim=0).float()
    torch.testing.assert_close(load(epsilon_folder).levels.signal_power, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "scheduler", ["PNDMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler"]
)
def test_any_scheduler_of_diffusers_gives_one_schedule(
    copied: Path, epsilon_folder: Path, scheduler: str
) -> None:
    edit(copied / "scheduler/scheduler_config.json", _class_name=scheduler)
    assert torch.equal(load(copied).levels.signal_power, load(epsilon_folder).levels.signal_power)


def test_folder_is_found_by_each_of_its_names(epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = load(epsilon_folder).version
    assert load(f"local-dir:{epsilon_folder}").version == version
    monkeypatch.chdir(epsilon_folder.parent)
    assert load("./epsilon").version == load("epsilon").version == version


def test_demo_is_the_teacher_in_the_repository(
    epsilon_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "demo_folder", lambda: tmp_path / "student")
    with pytest.raises(TeacherError, match="make demo-teacher"):
        load("demo")
    shutil.copytree(epsilon_folder, tmp_path / "teacher")
    assert load("demo").reference == "demo"


def test_hub_name_downloads_safetensors_and_no_vae_unless_asked(
    epsilon_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def snapshot_download(repository: str, *, allow_patterns: list[str]) -> str:
        assert repository == "organisation/name"
        asked.append(allow_patterns)
        return str(epsilon_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load("organisation/name").reference == "organisation/name"
    assert load("organisation/name", vae=True).vae is not None
    assert UNET in asked[0]
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert [vae in patterns for patterns in asked] == [False, True]


def test_hub_that_cannot_be_reached_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repository: str, *, allow_patterns: list[str]) -> str:
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(TeacherError, match=r"organisation/name.*HF_HOME"):
        load("organisation/name")


def test_hub_model_without_safetensors_is_told_from_a_damaged_one(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / UNET).unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(copied))
    with pytest.raises(TeacherError, match=r"pickle.* hub"):
        load("organisation/name")


@pytest.mark.parametrize("reference", ["", "nothing", "a/b/c", "hub name/x"])
def test_words_that_name_nothing_are_refused(reference: str) -> None:
    with pytest.raises(TeacherError, match="names no teacher"):
        load(reference)


def test_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="there is no folder"):
        load(tmp_path / "none")


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (
            {"_class_name": "StableDiffusionXLPipeline", "text_encoder_2": ["transformers", "CLIPTextModel"]},
            "StableDiffusionXLPipeline whose text_encoder_2 is a CLIPTextModel, not a CLIPTextModelWithProjection",
        ),
        ({"transformer": ["diffusers", "FluxTransformer2DModel"]}, "mixes families"),
        (
            {"unet": [None, None], "transformer": ["diffusers", "FluxTransformer2DModel"]},
            "without text_encoder_2",
        ),
        (
            {"unet": [None, None], "transformer": ["diffusers", "SanaTransformer2DModel"]},
            "its denoiser is a SanaTransformer2DModel",
        ),
        ({"scheduler": [None, None]}, "without scheduler"),
        ({"unet": [None, None]}, "without unet"),
        ({"unet": ["diffusers", "Kandinsky3UNet"]}, "whose unet is a Kandinsky3UNet"),
        ({"text_encoder": ["transformers", "T5EncoderModel"]}, "whose text_encoder is a T5EncoderModel"),
    ],
)
def test_other_kinds_of_model_are_refused_by_name(copied: Path, index: dict[str, Any], reason: str) -> None:
    edit(copied / "model_index.json", **index)
    with pytest.raises(TeacherError, match=reason):
        load(copied)


@pytest.mark.parametrize(
    ("unet", "reason"),
    [
        ({"addition_embed_type": "text_time"}, r"more than a caption \(addition_embed_type\)"),
        ({"class_embed_type": "timestep"}, r"more than a caption \(class_embed_type\)"),
        ({"num_class_embeds": 1000}, r"more than a caption \(num_class_embeds\)"),
        ({"in_channels": 9}, "takes 9 channels and gives 4"),
        ({"sample_size": None}, "sample_size"),
        ({"sample_size": True}, "True as sample_size"),
        ({"sample_size": -8}, "-8 as sample_size"),
        ({"cross_attention_dim": 24}, "cannot be loaded as UNet2DConditionModel"),
    ],
)
def test_u_nets_for_something_else_are_refused(copied: Path, unet: dict[str, Any], reason: str) -> None:
    edit(copied / "unet/config.json", **unet)
    with pytest.raises(TeacherError, match=reason):
        load(copied)


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [
        ({"prediction_type": "sample"}, "prediction_type is sample"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "mixes families"),
        ({"_class_name": "NoScheduler"}, "names no scheduler"),
        ({"_class_name": "pipelines"}, "scheduler cannot be loaded"),
        ({"trained_betas": [2.0] * 1000}, "noise schedule"),
        ({"beta_start": 0.5, "beta_end": 1.5}, "noise schedule"),  # abar is 0 before the betas pass 1
        ({"trained_betas": [0.5] * 1000}, "noise schedule"),
        ({"trained_betas": [0.01, -0.01, 0.01]}, "noise schedule"),
        ({"trained_betas": [0.0, 0.0, 0.01]}, "noise schedule"),
        ({"trained_betas": [0.01, float("nan"), 0.01]}, "noise schedule"),
    ],
)
def test_schedules_for_something_else_are_refused(
    copied: Path, scheduler: dict[str, Any], reason: str
) -> None:
    edit(copied / "scheduler/scheduler_config.json", **scheduler)
    with pytest.raises(TeacherError, match=reason):
        load(copied)


def test_a_configuration_of_a_thousand_nested_lists_is_refused(copied: Path) -> None:
    (copied / "unet/config.json").write_text("[" * 100_000)
    with pytest.raises(TeacherError, match=r"config\.json cannot be read"):
        load(copied)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_a_schedule_that_ends_in_pure_noise_is_taken(copied: Path, scheduler: str) -> None:
    changes = {"_class_name": scheduler, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    edit(copied / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True, **changes)
    assert load(copied).levels.signal_power[-1] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("part", "name"), [("unet", "diffusion_pytorch_model"), ("text_encoder", "model")])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_that_are_not_finite_are_refused(
    copied: Path, part: str, name: str, number: float, precision: str
) -> None:
    file = copied / part / f"{name}.safetensors"
    weights = load_file(file)
    broken = sorted(weights)[3]
    weights[broken].view(-1)[-1] = number
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(TeacherError, match=f"{part}.*not finite"):
        load(copied, precision=precision)


def test_vae_weights_that_are_not_finite_are_refused_where_it_is_loaded(copied: Path) -> None:
    file = copied / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["encoder.conv_out.bias"][0] = float("nan")
    save_file(weights, file)
    assert load(copied).vae is None
    with pytest.raises(TeacherError, match=r"vae.*encoder\.conv_out\.bias"):
        load(copied, vae=True)


@pytest.mark.parametrize(
    ("vae", "fault"),
    [
        ({"latents_mean": [0.0] * 4}, "latents_mean or latents_std without the other"),
        ({"latents_std": [1.0] * 4}, "latents_mean or latents_std without the other"),
        (
            {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4, "shift_factor": 0.1},
            "latents_mean and shift",
        ),
        ({"latents_mean": [0.0] * 3, "latents_std": [1.0] * 4}, "each of 4 channels"),
        ({"latents_mean": [0.0] * 4, "latents_std": [1.0, 1.0, 1.0, 0.0]}, "must be positive"),
        ({"latents_mean": [0.0, 0.0, 0.0, float("nan")], "latents_std": [1.0] * 4}, "must be finite"),
        ({"scaling_factor": 0.0}, "must be positive"),
        ({"scaling_factor": float("inf")}, "must be positive"),
    ],
)
def test_vaes_whose_latents_have_no_known_scale_are_refused(
    copied: Path, vae: dict[str, Any], fault: str
) -> None:
    edit(copied / "vae/config.json", **vae)
    with pytest.raises(TeacherError, match=fault):
        load(copied, vae=True)


def pickled(folder: Path) -> None:
    (folder / UNET).unlink()
    torch.save({}, folder / "unet/diffusion_pytorch_model.bin")


def variant_only(folder: Path) -> None:
    (folder / UNET).rename(folder / "unet/diffusion_pytorch_model.fp16.safetensors")


def cut_short(folder: Path) -> None:
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:-100])


def without_a_weight(folder: Path) -> None:
    weights = load_file(folder / UNET)
    weights.pop("conv_out.bias")
    save_file(weights, folder / UNET)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (pickled, r"only as a pickle \(diffusion_pytorch_model.bin\)"),
        (variant_only, "diffusion_pytorch_model.fp16.safetensors"),
        (cut_short, "unet cannot be loaded"),
        (without_a_weight, "1 weights.* conv_out.bias"),
        (lambda folder: (folder / "model_index.json").unlink(), "model_index.json is missing"),
        (lambda folder: (folder / "model_index.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "model_index.json").write_text("[]"), "not a JSON object"),
        (lambda folder: shutil.rmtree(folder / "text_encoder"), "text_encoder .*no weights"),
        (
            lambda folder: shutil.rmtree(folder / "tokenizer"),
            r"tokenizer has neither vocab\.json with merges\.txt",
        ),
        (lambda folder: shutil.rmtree(folder / "scheduler"), "scheduler_config.json is missing"),
    ],
)
def test_parts_that_are_missing_or_damaged_are_named(
    copied: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(copied)
    with pytest.raises(TeacherError, match=reason):
        load(copied)


def test_vae_is_missed_only_where_it_is_needed(copied: Path) -> None:
    shutil.rmtree(copied / "vae")
    assert load(copied).resolution_px == 64
    with pytest.raises(TeacherError, match=r"vae.config\.json is missing"):
        load(copied, vae=True)


def test_parts_of_different_models_are_refused(tmp_path: Path) -> None:
    save_sd_teacher(tmp_path / "wide", text_width=48)
    with pytest.raises(TeacherError, match=r"32.*48"):
        load(tmp_path / "wide")
    save_sd_teacher(tmp_path / "long")
    edit(tmp_path / "long/tokenizer/tokenizer_config.json", model_max_length=1000)
    with pytest.raises(TeacherError, match=f"1000.*{CONTEXT_LENGTH}"):
        load(tmp_path / "long")
    config = tmp_path / "long/text_encoder/config.json"
    edit(tmp_path / "long/tokenizer/tokenizer_config.json", model_max_length=CONTEXT_LENGTH)
    weights = load_file(tmp_path / "long/text_encoder/model.safetensors")
    (name,) = (name for name in weights if "token_embedding" in name)
    save_file(
        {**weights, name: weights[name][:500].clone()},
        tmp_path / "long/text_encoder/model.safetensors",
        metadata={"format": "pt"},
    )
    edit(config, vocab_size=500)
    with pytest.raises(TeacherError, match=r"514.*500"):
        load(tmp_path / "long")
    save_sd_teacher(tmp_path / "latents", unet={"in_channels": 8, "out_channels": 8})
    with pytest.raises(TeacherError, match=r"4 .* 8"):
        load(tmp_path / "latents", vae=True)


def test_unknown_precision_is_refused(epsilon_folder: Path) -> None:
    with pytest.raises(PrecisionError, match="float8"):
        load(epsilon_folder, precision="float8")


def test_version_names_what_changes_a_prediction(copied: Path, epsilon_folder: Path, v_folder: Path) -> None:
    version = load(epsilon_folder).version
    edit(copied / "unet/config.json", _diffusers_version="0.1")
    assert load(copied).version == version != load(v_folder).version
    edit(copied / "scheduler/scheduler_config.json", prediction_type="v_prediction")
    as_v = load(copied).version
    weights = load_file(copied / UNET)
    weights["conv_out.bias"] += 1e-6
    save_file(weights, copied / UNET)
    assert len({version, as_v, load(copied).version}) == 3


def test_vae_has_a_version_of_its_own_where_it_is_loaded(copied: Path, epsilon_folder: Path) -> None:
    assert load(epsilon_folder).vae_version is None
    before = load(epsilon_folder, vae=True)
    edit(copied / "vae/config.json", _diffusers_version="0.1")
    assert load(copied, vae=True).vae_version == before.vae_version
    edit(copied / "vae/config.json", scaling_factor=0.5)
    rescaled = load(copied, vae=True).vae_version
    file = copied / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights["encoder.conv_out.bias"] += 1e-6
    save_file(weights, file)
    after = load(copied, vae=True)
    assert len({before.vae_version, rescaled, after.vae_version}) == 3
    assert after.version == before.version


def test_weights_named_as_in_stable_diffusion_s_repositories_load(copied: Path) -> None:
    """Text encoders of before transformers 5, VAEs of before diffusers named attention's projections to_q."""
    config = {**json.loads((copied / "vae/config.json").read_text()), "mid_block_add_attention": True}
    AutoencoderKL(**{key: value for key, value in config.items() if key[0] != "_"}).save_pretrained(
        copied / "vae"
    )
    teacher = load(copied, vae=True)
    text, vae = copied / "text_encoder/model.safetensors", copied / "vae/diffusion_pytorch_model.safetensors"
    named = {
        f"text_model.{name.removeprefix('text_model.')}": value for name, value in load_file(text).items()
    }
    positions = {"text_model.embeddings.position_ids": torch.arange(CONTEXT_LENGTH)[None]}
    save_file(named | positions, text, metadata={"format": "pt"})
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(vae)
    for new, name in old.items():
        weights = {
            key.replace(f"attentions.0.{new}", f"attentions.0.{name}"): value
            for key, value in weights.items()
        }
    save_file(weights, vae, metadata={"format": "pt"})
    again = load(copied, vae=True)
    pixels = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    assert torch.equal(again.encode_captions(["a cube"]), teacher.encode_captions(["a cube"]))
    assert torch.equal(again.encode_image(pixels), teacher.encode_image(pixels))
