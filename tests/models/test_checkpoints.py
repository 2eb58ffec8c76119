from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from sds_clip.models.checkpoints.load import CheckpointError, is_local, load_clip
from sds_clip.models.checkpoints.published import published_preprocess, stated_activation
from sds_clip.models.checkpoints.references import DESCRIPTION_FILE, Hub, Published
from sds_clip.models.checkpoints.sources import resolve
from tests.checkpoints import (
    PREPROCESS,
    SIGLIP,
    TINY,
    save_checkpoint,
    save_resnet,
    save_siglip,
    tiny_network,
)
from tests.deltas import save_tuned

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_checkpoint(tmp_path / "model", tiny_network().state_dict(), TINY)


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads((folder / CONFIG).read_text())
    change(content)
    (folder / CONFIG).write_text(json.dumps(content))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / WEIGHTS)
    change(weights)
    save_file(weights, folder / WEIGHTS)


def version(folder: Path) -> str:
    return load_clip(f"local-dir:{folder}", precision="float32").version


def refusal(reference: str) -> str:
    with pytest.raises(CheckpointError) as refused:
        load_clip(reference, precision="float32")
    return str(refused.value)


@pytest.mark.parametrize(
    "saved",
    [save_siglip, save_resnet, lambda folder: save_checkpoint(folder, tiny_network().state_dict(), TINY)],
)
def test_no_weight_is_drawn_before_it_is_read(tmp_path: Path, saved: Callable[[Path], Path]) -> None:
    folder = saved(tmp_path / "model")
    drawing = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__module__", None) == "torch.nn.init":
                drawing.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Watch():
        torch.nn.Linear(1, 1)
        assert drawing
        drawing.clear()
        load_clip(f"local-dir:{folder}", device="cpu", precision="float32")
    assert drawing == []


def test_loaded_checkpoint_says_what_it_is(folder: Path) -> None:
    clip = load_clip(f"local-dir:{folder}", precision="float32")
    assert clip.reference == f"local-dir:{folder}"
    assert clip.architecture == "model"
    assert (clip.embed_dim, clip.image_size, clip.context_length) == (32, (32, 32), 77)
    assert clip.logit_scale == pytest.approx(1 / 0.07)
    assert clip.logit_bias is None
    assert clip.parameters == sum(value.numel() for value in tiny_network().parameters())
    assert clip.size_bytes == 4 * clip.parameters
    assert not any(parameter.requires_grad for parameter in clip.network.parameters())
    assert not clip.network.training


def test_bare_path_of_a_folder_is_a_reference(folder: Path) -> None:
    assert load_clip(str(folder)).version == version(folder)


def test_resnet_loads_as_open_clip_loads_it(tmp_path: Path) -> None:
    folder = save_resnet(tmp_path / "resnet")
    exact, lower = (load_clip(f"local-dir:{folder}", precision=name) for name in ("float32", "bfloat16"))
    theirs = open_clip.create_model(f"local-dir:{folder}").eval()
    pixels, tokens = torch.randn(4, 3, 64, 64), exact.tokenizer(["a cat", "a red ball", "x", ""])
    with torch.no_grad():
        images, texts = theirs.encode_image(pixels), theirs.encode_text(tokens)
    assert exact.image_size == (64, 64)
    torch.testing.assert_close(exact.encode_image(pixels, normalize=False), images, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(exact.encode_text(tokens, normalize=False), texts, atol=1e-5, rtol=1e-5)
    assert torch.cosine_similarity(lower.encode_image(pixels), images).min() > 0.99
    assert torch.cosine_similarity(lower.encode_text(tokens), texts).min() > 0.99


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_file_that_is_overwritten_later_changes_no_weight(folder: Path, precision: str) -> None:
    clip = load_clip(f"local-dir:{folder}", device="cpu", precision=precision)
    before = {name: value.clone() for name, value in clip.network.state_dict().items()}
    with (folder / WEIGHTS).open("r+b") as file:
        file.write(bytes((folder / WEIGHTS).stat().st_size))
    assert all(torch.equal(value, before[name]) for name, value in clip.network.state_dict().items())


# The version


def test_version_stays_when_weights_are_stored_anew_elsewhere(folder: Path, tmp_path: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    other = save_checkpoint(tmp_path / "other", {}, {**TINY, "quick_gelu": False})
    save_file(dict(reversed(weights.items())), other / "model.safetensors", metadata={"format": "pt"})
    (other / WEIGHTS).unlink()
    assert version(other) == version(folder)


def test_version_stays_when_a_default_is_written_out(folder: Path) -> None:
    before = version(folder)
    edit_config(
        folder, lambda content: content["model_cfg"]["vision_cfg"].update(mlp_ratio=4.0, patch_dropout=0.5)
    )
    assert version(folder) == before


def swap_first_two_rows(weights: dict[str, torch.Tensor]) -> None:
    rows = weights["token_embedding.weight"]
    weights["token_embedding.weight"] = torch.cat([rows[1:2], rows[:1], rows[2:]])


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: edit_weights(folder, swap_first_two_rows),
        lambda folder: edit_config(folder, lambda content: content["model_cfg"].update(quick_gelu=True)),
        lambda folder: edit_config(
            folder, lambda content: content["preprocess_cfg"].update(resize_mode="squash")
        ),
        lambda folder: edit_config(
            folder, lambda content: content["preprocess_cfg"].update(mean=[0.5, 0.5, 0.5])
        ),
        lambda folder: edit_config(
            folder,
            lambda content: content["model_cfg"]["text_cfg"].update(tokenizer_kwargs={"clean": "whitespace"}),
        ),
    ],
    ids=["weights", "activation", "resizing", "mean", "cleaning"],
)
def test_version_changes_with_whatever_changes_a_result(folder: Path, change: Callable[[Path], Any]) -> None:
    before = version(folder)
    change(folder)
    assert version(folder) != before


def test_version_changes_with_the_tokenizer(tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "siglip")
    before = version(folder)
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["red"], vocabulary["blue"] = vocabulary["blue"], vocabulary["red"]
    file.write_text(json.dumps(content))
    assert version(folder) != before


# Missing and contradicting pieces


@pytest.mark.parametrize("key", ["mean", "std", "interpolation", "resize_mode"])
def test_missing_preprocessing_is_not_guessed(folder: Path, key: str) -> None:
    edit_config(folder, lambda content: content["preprocess_cfg"].pop(key))
    assert f"preprocess_cfg.{key}" in refusal(f"local-dir:{folder}")


def test_missing_weights_are_not_drawn_at_random(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    assert "no weights" in refusal(f"local-dir:{folder}")


def test_folder_of_pickles_is_sent_to_convert(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(tiny_network().state_dict(), folder / "open_clip_pytorch_model.bin")
    assert "sds-clip convert" in refusal(f"local-dir:{folder}")


def test_truncated_weights_are_refused(folder: Path) -> None:
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:-1000])
    assert "cannot be read as weights" in refusal(f"local-dir:{folder}")


def test_missing_tensor_is_named(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("visual.ln_post.weight"))
    assert "visual.ln_post.weight" in refusal(f"local-dir:{folder}")


def test_other_width_is_refused(folder: Path) -> None:
    edit_config(folder, lambda content: content["model_cfg"]["vision_cfg"].update(width=128))
    assert "visual." in refusal(f"local-dir:{folder}")


def test_position_embedding_is_not_resized_in_silence(folder: Path) -> None:
    edit_config(folder, lambda content: content["model_cfg"]["vision_cfg"].update(image_size=64))
    assert "visual.positional_embedding" in refusal(f"local-dir:{folder}")


def test_tower_that_reads_pictures_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "siglip")
    edit_config(
        folder,
        lambda content: content["model_cfg"]["vision_cfg"].update(timm_model_name="test_vit3", image_size=96),
    )
    assert "image_size 96x96, but its tower from timm reads pictures of 160x160" in refusal(
        f"local-dir:{folder}"
    )


def test_context_length_is_not_resized_in_silence(folder: Path) -> None:
    edit_config(folder, lambda content: content["model_cfg"]["text_cfg"].update(context_length=32))
    assert "context_length" in refusal(f"local-dir:{folder}")


def test_preprocessing_for_another_size_is_refused(folder: Path) -> None:
    edit_config(folder, lambda content: content["preprocess_cfg"].update(size=224))
    assert "contradicts itself" in refusal(f"local-dir:{folder}")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, number: float) -> None:
    edit_weights(folder, lambda weights: weights["text_projection"].view(-1)[:1].fill_(number))
    assert "text_projection" in refusal(f"local-dir:{folder}")


def test_unknown_setting_is_refused(folder: Path) -> None:
    edit_config(folder, lambda content: content["model_cfg"]["vision_cfg"].update(colour="blue"))
    assert "colour" in refusal(f"local-dir:{folder}")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model_cfg": {}}', '{"model_cfg": 3}'])
def test_configuration_that_describes_no_model_is_refused(folder: Path, content: str) -> None:
    (folder / CONFIG).write_text(content)
    assert CONFIG in refusal(f"local-dir:{folder}")


def test_bias_without_its_configuration_is_refused(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update(logit_bias=torch.tensor(-10.0)))
    assert "init_logit_bias" in refusal(f"local-dir:{folder}")


def test_configured_bias_without_its_weight_is_refused(tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "siglip")
    edit_weights(folder, lambda weights: weights.pop("logit_bias"))
    assert "init_logit_bias" in refusal(f"local-dir:{folder}")


def test_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "siglip")
    assert SIGLIP["text_cfg"]["vocab_size"] == 40
    edit_config(folder, lambda content: content["model_cfg"]["text_cfg"].update(vocab_size=20))
    assert "text_cfg.vocab_size" in refusal(f"local-dir:{folder}")


def test_missing_tokenizer_files_are_refused(tmp_path: Path) -> None:
    folder = save_siglip(tmp_path / "siglip")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer.json" in refusal(f"local-dir:{folder}")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "none") in refusal(f"local-dir:{tmp_path / 'none'}")


# Activation


def test_neighbouring_configuration_that_says_quick_gelu_contradicts_plain_gelu(folder: Path) -> None:
    (folder / "config.json").write_text('{"vision_config": {"hidden_act": "quick_gelu"}, "text_config": {}}')
    assert "hidden_act quick_gelu" in refusal(f"local-dir:{folder}")
    edit_config(folder, lambda content: content["model_cfg"].update(quick_gelu=True))
    assert load_clip(f"local-dir:{folder}").quick_gelu


def test_openai_archive_entries_give_away_quick_gelu(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.update(input_resolution=torch.tensor(32)))
    assert "QuickGELU" in refusal(f"local-dir:{folder}")


def test_bare_weights_of_two_activations_must_say_theirs() -> None:
    with pytest.raises(CheckpointError, match=r"ViT-B-32\+quickgelu or ViT-B-32\+gelu"):
        stated_activation("ViT-B-32", None)
    assert stated_activation("ViT-B-32-quickgelu", None)
    assert not stated_activation("ViT-B-32", False)
    assert not stated_activation("ViT-B-32-256", None)
    with pytest.raises(CheckpointError, match="contradicts itself"):
        stated_activation("ViT-B-32-quickgelu", False)


def test_bare_weights_whose_published_kin_disagree_on_preprocessing_need_a_folder() -> None:
    with pytest.raises(CheckpointError, match="local-dir"):
        published_preprocess("ViT-L-14", False)
    assert published_preprocess("ViT-L-14", True)["resize_mode"] == "shortest"
    assert published_preprocess("ViT-B-16-SigLIP", False)["resize_mode"] == "squash"
    with pytest.raises(CheckpointError, match="preprocess_cfg"):
        published_preprocess("ViT-S-32", False)


def test_quick_gelu_name_with_plain_weights_contradicts_itself() -> None:
    with pytest.raises(CheckpointError, match="Use ViT-B-32/laion2b_s34b_b79k"):
        resolve(Published("ViT-B-32-quickgelu", "laion2b_s34b_b79k"))


@pytest.fixture
def published_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = str(tmp_path / WEIGHTS)
    monkeypatch.setattr("sds_clip.models.checkpoints.sources.download_pretrained", lambda entry: file)


@pytest.mark.usefixtures("published_file")
@pytest.mark.parametrize(
    ("architecture", "tag", "quick_gelu"),
    [
        ("ViT-B-32", "openai", True),
        ("ViT-B-32-quickgelu", "openai", True),
        ("ViT-B-32", "laion2b_s34b_b79k", False),
        ("ViT-B-32", "metaclip_400m", True),
        ("roberta-ViT-B-32", "laion2b_s12b_b32k", True),
        ("ViT-B-16-SigLIP", "webli", False),
    ],
)
def test_published_weights_get_their_own_activation(architecture: str, tag: str, quick_gelu: bool) -> None:
    assert resolve(Published(architecture, tag)).model_config["quick_gelu"] is quick_gelu


@pytest.mark.parametrize("name", ["weights.bin", "weights.pt"])
@pytest.mark.parametrize(
    ("reference", "stated"),
    [
        (Published("ViT-B-32", "metaclip_400m"), "ViT-B-32+quickgelu"),
        (Published("ViT-B-32", "laion2b_s34b_b79k"), "ViT-B-32+gelu"),
        (Published("ViT-B-32-quickgelu", "metaclip_400m"), "ViT-B-32-quickgelu"),
    ],
    ids=str,
)
def test_downloaded_pickle_is_sent_to_convert(
    reference: Published, stated: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sds_clip.models.checkpoints.sources.download_pretrained", lambda entry: f"/cache/{name}"
    )
    with pytest.raises(CheckpointError) as refused:
        resolve(reference)
    assert f"`sds-clip convert /cache/{name} --architecture {stated} --out FOLDER`" in str(refused.value)


# Names


@pytest.mark.parametrize(
    ("architecture", "tag", "advice"),
    [
        ("ViT-B-33", "openai", "ViT-B-32"),
        ("vit-b-32", "openai", "ViT-B-32"),
        ("ViT-B-32", "laion2b_s34b_b79", "laion2b_s34b_b79k"),
        ("ViT-S-32", "openai", "publishes no weights"),
    ],
)
def test_unknown_name_gets_the_nearest_ones(architecture: str, tag: str, advice: str) -> None:
    with pytest.raises(CheckpointError, match=advice):
        resolve(Published(architecture, tag))


@pytest.mark.parametrize("reference", [Published("ViT-B-32", "openai"), Hub("laion/none")], ids=str)
def test_hub_that_cannot_be_reached_is_explained(
    reference: Published | Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"HF_HOME.*local-dir:PATH"):
        resolve(reference)


# Hub repositories, their files given from a folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    def download(repository: str, filename: str) -> str:
        if not (folder / filename).is_file():
            raise FileNotFoundError(filename)
        return str(folder / filename)

    monkeypatch.setattr("sds_clip.models.checkpoints.sources.download_pretrained_from_hf", download)
    return folder


def test_repository_from_before_interpolation_was_stated_gets_what_was_meant_then(hub: Path) -> None:
    edit_config(
        hub, lambda content: [content["preprocess_cfg"].pop(key) for key in ("interpolation", "resize_mode")]
    )
    assert resolve(Hub("org/repo")).preprocess == {**PREPROCESS, "fill_color": 0}


@pytest.mark.parametrize("key", ["mean", "std", "interpolation", "resize_mode"])
def test_repository_that_states_half_is_refused(hub: Path, key: str) -> None:
    edit_config(hub, lambda content: content["preprocess_cfg"].pop(key))
    with pytest.raises(CheckpointError, match=f"preprocess_cfg.{key}"):
        resolve(Hub("org/repo"))


def test_repository_of_quick_gelu_weights_that_says_gelu_is_refused(hub: Path) -> None:
    assert resolve(Hub("laion/CLIP-ViT-B-32-laion2B-s34B-b79K"))
    with pytest.raises(CheckpointError, match="quick_gelu=False"):
        resolve(Hub("timm/vit_base_patch32_clip_224.openai"))


def test_repository_of_pickles_is_refused_before_they_are_fetched(hub: Path) -> None:
    (hub / WEIGHTS).rename(hub / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="sds-clip convert"):
        resolve(Hub("org/repo"))


def test_checkpoints_that_may_be_downloaded_are_known_before_they_are(
    tiny_folder: Path, siglip_folder: Path, tmp_path: Path
) -> None:
    for reference in ("demo", f"local-dir:{tiny_folder}", f"local-dir:{siglip_folder}"):
        assert is_local(reference)
    for reference in ("ViT-B-32", "ViT-B-32/openai", "hf-hub:someone/model"):
        assert not is_local(reference)
    delta = save_tuned(tmp_path / "delta", load_clip(f"local-dir:{tiny_folder}", precision="float32"))
    assert is_local(str(delta))
    described = json.loads((delta / DESCRIPTION_FILE).read_text())
    described["base"]["reference"] = "hf-hub:someone/model"
    (delta / DESCRIPTION_FILE).write_text(json.dumps(described))
    assert not is_local(str(delta))


def test_parts_of_a_local_checkpoint_may_be_downloaded_too(tiny_folder: Path, tmp_path: Path) -> None:
    weights = tiny_folder / WEIGHTS
    assert is_local(f"{weights}@ViT-B-32+gelu")
    assert not is_local(f"{weights}@ViT-B-16-SigLIP+gelu")  # its tokenizer is on the hub
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    config = json.loads((folder / CONFIG).read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = "someone/text-tower"
    (folder / CONFIG).write_text(json.dumps(config))
    assert not is_local(f"local-dir:{folder}")
