"""Checkpoints in the layouts in which others publish theirs: transformers' CLIP, image towers, training programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    SiglipConfig,
    SiglipModel,
)

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.convert import convert_checkpoint
from tests.checkpoints import PREPROCESS, TINY, save_tiny_clip, tiny_network

VISION = {
    "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8, "projection_dim": 32,
}  # fmt: skip
TEXT = {
    "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
    "projection_dim": 32,
}  # fmt: skip
SIGLIP_TOWER = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
}  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> str:
    """The model that the checkpoints were trained from: plain GELU, and other weights than any of them."""
    return f"local-dir:{save_tiny_clip(tmp_path / 'base', seed=7)}"


@pytest.fixture
def quick_base(tmp_path: Path) -> str:
    return f"local-dir:{save_tiny_clip(tmp_path / 'quick_base', seed=7, quick_gelu=True)}"


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def tokens(tiny_folder: Path) -> Tensor:
    return load_clip(f"local-dir:{tiny_folder}").tokenizer(["a dog", "a red cube left of a blue ball"])


def unlike_identity(model: nn.Module) -> nn.Module:
    """Give every gain and bias a value of its own, so that none can be mixed up unnoticed."""
    torch.manual_seed(3)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def their_clip(activation: str = "quick_gelu") -> CLIPModel:
    towers = {
        "vision_config": {**VISION, "hidden_act": activation},
        "text_config": {**TEXT, "hidden_act": activation},
    }
    model = unlike_identity(CLIPModel(CLIPConfig(**towers, projection_dim=32)))
    model.logit_scale.data.fill_(3.0)
    return model


def saved_as_bin(model: nn.Module, folder: Path) -> Path:
    """The layout of `save_pretrained(safe_serialization=False)`, which transformers 5 no longer writes."""
    folder.mkdir()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def saved_as_safetensors(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def image_embeddings(clip: Clip, pixels: Tensor) -> Tensor:
    return clip.encode_image(pixels, normalize=True)


def loaded(folder: Path) -> Clip:
    return load_clip(f"local-dir:{folder}", precision="float32")


@pytest.mark.parametrize("save", [saved_as_bin, saved_as_safetensors])
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@torch.no_grad()
def test_transformers_clip_embeds_as_in_transformers(
    save: Callable[[nn.Module, Path], Path], activation: str, base: str, quick_base: str, pixels: Tensor,
    tokens: Tensor, tmp_path: Path,
) -> None:  # fmt: skip
    theirs = their_clip(activation)
    folder = save(theirs, tmp_path / "theirs")

    ours = loaded(
        convert_checkpoint(folder, tmp_path / "out", base=quick_base if activation == "quick_gelu" else base)
    )

    expected = theirs(input_ids=tokens, pixel_values=pixels)
    torch.testing.assert_close(image_embeddings(ours, pixels), expected.image_embeds, atol=1e-5, rtol=0)
    texts = ours.encode_text(tokens, normalize=True)
    torch.testing.assert_close(texts, expected.text_embeds, atol=1e-5, rtol=0)
    assert ours.logit_scale == pytest.approx(float(theirs.logit_scale.exp()))


@pytest.mark.parametrize("has_projection", [True, False])
@torch.no_grad()
def test_transformers_image_tower_takes_the_rest_from_the_base(
    has_projection: bool, base: str, pixels: Tensor, tokens: Tensor, tmp_path: Path
) -> None:
    kind = CLIPVisionModelWithProjection if has_projection else CLIPVisionModel
    theirs: Any = unlike_identity(kind(CLIPVisionConfig(**{**VISION, "hidden_act": "gelu"})))
    folder = saved_as_safetensors(theirs, tmp_path / "theirs")

    ours = loaded(convert_checkpoint(folder, tmp_path / "out", base=base))

    before: Any = load_clip(base, precision="float32")
    output = theirs(pixel_values=pixels)
    expected = output.image_embeds if has_projection else output.pooler_output @ before.network.visual.proj
    torch.testing.assert_close(ours.encode_image(pixels, normalize=False), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(ours.encode_text(tokens, normalize=True), before.encode_text(tokens, normalize=True))
    assert ours.logit_scale == before.logit_scale


def test_position_ids_of_earlier_transformers_are_no_weights(quick_base: str, tmp_path: Path) -> None:
    theirs = their_clip()
    folder = saved_as_bin(theirs, tmp_path / "theirs")
    ids = {f"{tower}_model.embeddings.position_ids": torch.arange(3)[None] for tower in ("text", "vision")}
    torch.save({**theirs.state_dict(), **ids}, folder / "pytorch_model.bin")

    assert loaded(convert_checkpoint(folder, tmp_path / "out", base=quick_base)).quick_gelu


@torch.no_grad()
def test_image_tower_in_open_clips_names_takes_the_rest_from_the_base(
    base: str, pixels: Tensor, tokens: Tensor, tmp_path: Path
) -> None:
    network = tiny_network(seed=2).eval()
    torch.save(network.visual.state_dict(), tmp_path / "tower.ckpt")

    ours = loaded(convert_checkpoint(tmp_path / "tower.ckpt", tmp_path / "out", base=base))

    before = load_clip(base, precision="float32")
    torch.testing.assert_close(
        ours.encode_image(pixels, normalize=False), network.encode_image(pixels), atol=1e-5, rtol=1e-5
    )
    assert torch.equal(ours.encode_text(tokens, normalize=True), before.encode_text(tokens, normalize=True))
    assert ours.image_size == before.image_size


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: weights,
        lambda weights: {"model": weights},
        lambda weights: {f"clip_model.{name}": value for name, value in weights.items()},
        lambda weights: {f"module.model.{name}": value for name, value in weights.items()},
        lambda weights: (
            {f"class_model.model.{name}": value for name, value in weights.items()}
            | {"class_model.final_fc.weight": torch.ones(1, 32), "unet.conv_in.bias": torch.ones(4)}
        ),
    ],
    ids=["bare", "wrapped", "attribute", "distributed", "DIVA"],
)
@torch.no_grad()
def test_clip_is_found_in_the_module_that_trained_it(
    wrap: Callable[[dict[str, Tensor]], dict[str, Any]], base: str, pixels: Tensor, tmp_path: Path
) -> None:
    network = tiny_network(seed=2).eval()
    torch.save(wrap(network.state_dict()), tmp_path / "trained.pth")

    ours = loaded(convert_checkpoint(tmp_path / "trained.pth", tmp_path / "out", base=base))

    torch.testing.assert_close(
        ours.encode_image(pixels, normalize=False), network.encode_image(pixels), atol=1e-5, rtol=1e-5
    )


def test_two_clips_in_one_file_are_named(base: str, tmp_path: Path) -> None:
    weights = tiny_network().state_dict()
    both = {f"{part}.{name}": value for part in ("student", "average") for name, value in weights.items()}
    torch.save(both, tmp_path / "two.pt")

    with pytest.raises(CheckpointError, match=r"average\., student\."):
        convert_checkpoint(tmp_path / "two.pt", tmp_path / "out", base=base)


def test_image_tower_alone_asks_for_its_base(tmp_path: Path) -> None:
    torch.save(tiny_network().visual.state_dict(), tmp_path / "tower.ckpt")

    with pytest.raises(CheckpointError, match="--base"):
        convert_checkpoint(tmp_path / "tower.ckpt", tmp_path / "out", architecture="ViT-B-32+gelu")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda tower: tower.pop("ln_post.bias"), r"lacks visual\.ln_post\.bias"),
        (lambda tower: tower.update({"adapter.weight": torch.ones(2)}), r"also has visual\.adapter\.weight"),
    ],
)
def test_image_tower_of_another_model_is_refused_by_name(
    change: Callable[[dict[str, Tensor]], Any], named: str, base: str, tmp_path: Path
) -> None:
    tower = dict(tiny_network().visual.state_dict())
    change(tower)
    torch.save(tower, tmp_path / "tower.ckpt")

    with pytest.raises(CheckpointError, match=named):
        convert_checkpoint(tmp_path / "tower.ckpt", tmp_path / "out", base=base)
    assert not (tmp_path / "out").exists()


def test_whole_model_lacks_nothing_that_the_base_would_have_to_lend(base: str, tmp_path: Path) -> None:
    weights = tiny_network().state_dict()
    del weights["ln_final.bias"]
    torch.save(weights, tmp_path / "part.pt")

    with pytest.raises(CheckpointError, match=r"part\.pt.*ln_final\.bias"):
        convert_checkpoint(tmp_path / "part.pt", tmp_path / "out", base=base)


def test_activation_that_transformers_config_denies_is_refused(base: str, tmp_path: Path) -> None:
    folder = saved_as_safetensors(their_clip("quick_gelu"), tmp_path / "theirs")

    with pytest.raises(CheckpointError, match="hidden_act"):
        convert_checkpoint(folder, tmp_path / "out", base=base)


@pytest.mark.parametrize(
    ("tower", "name", "value"),
    [("vision_config", "num_attention_heads", 4), ("text_config", "eos_token_id", 5)],
)
def test_what_the_weights_do_not_show_is_compared_with_the_configuration(
    tower: str, name: str, value: int, quick_base: str, tmp_path: Path
) -> None:
    folder = saved_as_safetensors(their_clip(), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    config[tower][name] = value
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(CheckpointError, match=f"{name} {value}"):
        convert_checkpoint(folder, tmp_path / "out", base=quick_base)


def test_transformers_folder_states_its_activation_and_preprocessing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from open_clip import factory

    monkeypatch.setitem(factory._MODEL_CONFIGS, "Tiny", TINY)  # without published weights
    folder = saved_as_safetensors(their_clip(), tmp_path / "theirs")
    CLIPImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
    ).save_pretrained(folder)  # fmt: skip

    out = convert_checkpoint(folder, tmp_path / "out", architecture="Tiny")

    content = json.loads((out / "open_clip_config.json").read_text())
    assert content["model_cfg"]["quick_gelu"]
    assert content["preprocess_cfg"] == {
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bicubic", "resize_mode": "shortest",
        "fill_color": 0,
    }  # fmt: skip


def test_base_gives_the_preprocessing_that_nothing_else_states(base: str, tmp_path: Path) -> None:
    torch.save(tiny_network().visual.state_dict(), tmp_path / "tower.ckpt")

    out = convert_checkpoint(tmp_path / "tower.ckpt", tmp_path / "out", base=base)

    content = json.loads((out / "open_clip_config.json").read_text())
    assert content["preprocess_cfg"] == {**PREPROCESS, "fill_color": 0}


def test_transformers_siglip_is_not_taken_for_clip(base: str, tmp_path: Path) -> None:
    vision = {**SIGLIP_TOWER, "image_size": 32, "patch_size": 8}
    config = SiglipConfig(vision_config=vision, text_config={**SIGLIP_TOWER, "vocab_size": 40})
    folder = saved_as_safetensors(SiglipModel(config), tmp_path / "siglip")

    with pytest.raises(CheckpointError, match="SigLIP"):
        convert_checkpoint(folder, tmp_path / "out", base=base)


def test_folder_without_one_file_of_weights_says_so(base: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        convert_checkpoint(tmp_path / "empty", tmp_path / "out", base=base)


def test_tokenizer_of_the_base_comes_along(siglip_folder: Path, tmp_path: Path) -> None:
    before: Any = load_clip(f"local-dir:{siglip_folder}", precision="float32")
    torch.save(before.network.visual.state_dict(), tmp_path / "tower.ckpt")

    ours = loaded(
        convert_checkpoint(tmp_path / "tower.ckpt", tmp_path / "out", base=f"local-dir:{siglip_folder}")
    )

    assert ours.version == before.version


def test_architecture_and_base_exclude_each_other(base: str, tmp_path: Path) -> None:
    torch.save(CLIP(**deepcopy(TINY)).state_dict(), tmp_path / "a.pt")

    for given in ({}, {"architecture": "ViT-B-32+gelu", "base": base}):
        with pytest.raises(CheckpointError, match="either"):
            convert_checkpoint(tmp_path / "a.pt", tmp_path / "out", **given)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": ["clip"]},
        {"vision_config": 3},
        {"vision_config": {**VISION, "hidden_size": "abc"}},
    ],
)
def test_a_configuration_that_transformers_cannot_read_is_refused(
    change: dict[str, Any], base: str, tmp_path: Path
) -> None:
    folder = saved_as_safetensors(their_clip(), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))

    with pytest.raises(CheckpointError, match=r"config\.json"):
        convert_checkpoint(folder, tmp_path / "out", base=base)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_rescale": False}, "255"),
        ({"crop_size": None, "size": None}, "the same size"),
        ({"crop_size": {"height": 32, "width": 16}}, "the same size"),
        ({"do_center_crop": False}, "the same size"),
        ({"image_mean": None}, "image_mean"),
        ({"image_mean": ["0.1", "0.2", "0.3"]}, "image_mean"),
        ({"image_std": [0.5]}, "image_std"),
    ],
)
def test_preprocessing_that_is_not_that_of_clip_is_refused(
    change: dict[str, Any], message: str, quick_base: str, tmp_path: Path
) -> None:
    folder = saved_as_safetensors(their_clip(), tmp_path / "theirs")
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(
        folder
    )
    file = folder / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))

    with pytest.raises(CheckpointError, match=f"{message}.*--preprocess"):
        convert_checkpoint(folder, tmp_path / "out", base=quick_base)


@pytest.mark.parametrize("change", [lambda value: value.to(torch.complex64), lambda value: value.to_sparse()])
def test_tensors_that_are_no_dense_real_numbers_are_named(
    change: Callable[[Tensor], Tensor], base: str, tmp_path: Path
) -> None:
    weights = tiny_network().state_dict()
    weights["text_projection"] = change(weights["text_projection"])
    torch.save(weights, tmp_path / "odd.pt")

    with pytest.raises(CheckpointError, match="text_projection"):
        convert_checkpoint(tmp_path / "odd.pt", tmp_path / "out", base=base)
