"""Adapters in PEFT's format, against transformers' own model with the products in its weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.convert import convert_checkpoint
from sds_clip.models.export.write import export_full
from tests.checkpoints import TINY, save_checkpoint, save_siglip, save_tiny_clip, tiny_network
from tests.deltas import save_lora, save_tuned
from tests.models.test_export_formats import save_tiny_siglip

TEXTS = ["a red cube", "two dogs", ""]
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
SAVE: dict[str, Callable[[Path], Path]] = {"clip": save_tiny_clip, "siglip": save_tiny_siglip}


def loaded(reference: object) -> Clip:
    return load_clip(str(reference), device="cpu", precision="float32")


@pytest.fixture(scope="module", params=SAVE)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return loaded(SAVE[request.param](tmp_path_factory.mktemp(request.param) / "base"))


@pytest.fixture(scope="module")
def theirs(base: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base in transformers' layout."""
    return export_full(base, tmp_path_factory.mktemp("theirs") / "base", format="transformers")


def by_transformers(folder: Path, adapter: Path, clip: Clip, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Features of transformers' model, with alpha / r B A added to the weights that the adapter names."""
    model = AutoModel.from_pretrained(folder).eval()
    config, tensors = json.loads((adapter / CONFIG).read_text()), load_file(adapter / TENSORS)
    with torch.inference_mode():
        for name, a in tensors.items():
            if name.endswith(".lora_A.weight"):
                layer = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
                b = tensors[name.replace("lora_A", "lora_B")]
                model.get_submodule(layer).weight += config["lora_alpha"] / config["r"] * (b @ a)
        images = model.get_image_features(pixel_values=pixels).pooler_output
        texts = model.get_text_features(input_ids=clip.tokenizer(TEXTS)).pooler_output
    return images, texts


def pixels_of(clip: Clip) -> Tensor:
    return torch.randn(2, 3, *clip.image_size, generator=torch.Generator().manual_seed(7))


def assert_agree(clip: Clip, features: tuple[Tensor, Tensor]) -> None:
    images = clip.encode_image(pixels_of(clip), normalize=False)
    torch.testing.assert_close(images, features[0], atol=1e-5, rtol=1e-5)
    texts = clip.encode_text(clip.tokenizer(TEXTS), normalize=False)
    torch.testing.assert_close(texts, features[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_exported_adapter_is_the_version_in_transformers(
    base: Clip, theirs: Path, tmp_path: Path, alpha: float | None
) -> None:
    delta = save_lora(tmp_path / "delta", base, "both", rank=3, scale=0.5)
    adapter = export_full(f"local-dir:{delta}", tmp_path / "adapter", alpha, format="peft")
    clip = loaded(f"local-dir:{delta}{'' if alpha is None else f'#alpha={alpha}'}")
    assert_agree(clip, by_transformers(theirs, adapter, clip, pixels_of(clip)))
    assert "PeftModel.from_pretrained" in (adapter / "README.md").read_text()
    assert str(tmp_path) not in (adapter / CONFIG).read_text()


def test_whole_export_is_another_version_of_the_same_function(base: Clip, tmp_path: Path) -> None:
    delta = save_lora(tmp_path / "delta", base, "both")
    whole, clip = loaded(export_full(f"local-dir:{delta}", tmp_path / "whole")), loaded(delta)
    pixels = pixels_of(clip)
    assert torch.equal(whole.encode_image(pixels), clip.encode_image(pixels))
    assert whole.version != clip.version
    # Reads it back with transformers, or raises.
    export_full(f"local-dir:{delta}", tmp_path / "transformers", format="transformers")


def test_weights_with_factors_in_them_are_float32_in_the_export_of_a_half_precision_base(
    tmp_path: Path,
) -> None:
    weights = {name: value.half() for name, value in tiny_network().state_dict().items()}
    half = loaded(save_checkpoint(tmp_path / "half", weights, TINY))
    delta = save_lora(tmp_path / "delta", half)
    out = export_full(f"local-dir:{delta}", tmp_path / "whole")
    formats = {name: value.dtype for name, value in load_file(out / "open_clip_model.safetensors").items()}
    assert {name for name, format in formats.items() if format is torch.float32} == {
        f"{tower}.resblocks.{block}.attn.{weight}"
        for tower in ("visual.transformer", "transformer")
        for block in (0, 1)
        for weight in ("in_proj_weight", "out_proj.weight")
    }
    pixels = pixels_of(half)
    assert torch.equal(loaded(out).encode_image(pixels), loaded(delta).encode_image(pixels))


def save_adapter(folder: Path, theirs: Path, targets: tuple[str, ...], **options: Any) -> Path:
    """An adapter as PEFT saves one, of all of a model's layers that are called so."""
    model, random, rank = AutoModel.from_pretrained(theirs), torch.Generator().manual_seed(1), 3
    tensors = {}
    for name, module in model.named_modules():
        if name.endswith(targets) and isinstance(module, torch.nn.Linear):
            out, width = module.weight.shape
            # PEFT reaches no layer inside of nn.MultiheadAttention: its factors stay as they began.
            share = 0.0 if ".head.attention" in name else 0.1
            for letter, shape in (("A", (rank, width)), ("B", (out, rank))):
                value = torch.randn(shape, generator=random) * (share if letter == "B" else 0.1)
                tensors[f"base_model.model.{name}.lora_{letter}.weight"] = value
    config = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": 6,
        "bias": "none",
        "target_modules": list(targets),
    }
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": "some/clip", **options}))
    save_file(tensors, folder / TENSORS)
    return folder


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj", "out_proj", "fc1", "fc2")])
def test_adapter_that_was_trained_elsewhere_is_a_delta(
    base: Clip, theirs: Path, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    adapter = save_adapter(tmp_path / "adapter", theirs, targets)
    delta = convert_checkpoint(adapter, tmp_path / "delta", base=base.reference)
    clip = loaded(delta)
    assert_agree(clip, by_transformers(theirs, adapter, clip, pixels_of(clip)))
    content = json.loads((delta / "sds_clip_delta.json").read_text())
    assert content["configuration"]["adapter"]["base_model_name_or_path"] == "some/clip"
    again = export_full(f"local-dir:{delta}", tmp_path / "again", format="peft")
    back = convert_checkpoint(again, tmp_path / "back", base=base.reference)
    assert loaded(back).version == clip.version


def test_scale_of_rslora_is_read(base: Clip, theirs: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", theirs, ("q_proj",), use_rslora=True)
    delta = convert_checkpoint(adapter, tmp_path / "delta", base=base.reference)
    assert load_file(delta / "delta.safetensors")["lora.scale"].item() == pytest.approx(6 / 3**0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"peft_type": "IA3"}, "is of the kind IA3"),
        ({"use_dora": True}, "has use_dora: True"),
        ({"bias": "lora_only"}, "has bias: 'lora_only'"),
        ({"rank_pattern": {"q_proj": 8}}, "has rank_pattern"),
        ({"modules_to_save": ["visual_projection"]}, "has modules_to_save"),
        ({"init_lora_weights": "pissa"}, "has init_lora_weights: 'pissa'"),
        ({"lora_alpha": 1e300}, "cannot be read as an adapter of PEFT .*lora_alpha is 1e.300"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"r": 0}, "cannot be read as an adapter of PEFT .*r is 0"),
        ({"r": 4}, r"does not fit .*: lora_A of .* is \[3, \d+\]"),
    ],
)
def test_adapter_of_another_kind_is_refused_by_what_it_has(
    base: Clip, theirs: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    adapter = save_adapter(tmp_path / "adapter", theirs, ("q_proj",), **options)
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(adapter, tmp_path / "delta", base=base.reference)
    assert not (tmp_path / "delta").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, name: tensors.pop(f"{name}.lora_B.weight"), r"without .*lora_B\.weight"),
        (lambda tensors, name: tensors.pop(f"{name}.lora_A.weight"), r"without .*lora_A\.weight"),
        (
            lambda tensors, name: tensors.update({f"{name}.lora_magnitude_vector": torch.ones(3)}),
            "is no factor",
        ),
        (
            lambda tensors, name: tensors.update({f"{name}.lora_B.bias": torch.ones(3)}),
            "is no factor of LoRA",
        ),
    ],
)
def test_adapter_with_half_a_product_or_more_than_one_is_refused(
    base: Clip, theirs: Path, tmp_path: Path, change: Callable[[dict[str, Tensor], str], Any], message: str
) -> None:
    adapter = save_adapter(tmp_path / "adapter", theirs, ("q_proj",))
    tensors = load_file(adapter / TENSORS)
    change(tensors, min(tensors).partition(".lora_")[0])
    save_file(tensors, adapter / TENSORS)
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(adapter, tmp_path / "delta", base=base.reference)


def test_lora_over_lora_is_no_adapter(base: Clip, tmp_path: Path) -> None:
    first = save_lora(tmp_path / "first", base)
    second = save_lora(tmp_path / "second", loaded(first))
    with pytest.raises(CheckpointError, match=r"lies over a delta, .*first"):
        export_full(f"local-dir:{second}", tmp_path / "out", format="peft")


def test_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    bases = [loaded(save_tiny_clip(tmp_path / f"{seed}", seed=seed)) for seed in (1, 2)]
    delta = save_lora(tmp_path / "delta", bases[0])
    adapter = export_full(f"local-dir:{delta}", tmp_path / "adapter", format="peft")
    with pytest.raises(
        CheckpointError, match=f"an adapter for version {bases[0].version[:12]}, but .* is version"
    ):
        convert_checkpoint(adapter, tmp_path / "out", base=bases[1].reference)
    siglip = save_tiny_siglip(tmp_path / "siglip")
    of_siglip = export_full(loaded(siglip), tmp_path / "theirs", format="transformers")
    other = save_adapter(tmp_path / "other", of_siglip, ("q_proj", "head.mlp.fc1"))
    with pytest.raises(CheckpointError, match=r"for some/clip, and does not fit .*lora_A of text_model"):
        convert_checkpoint(other, tmp_path / "out", base=bases[0].reference)


def test_what_is_no_adapter_or_has_no_place_for_one_is_refused(base: Clip, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / CONFIG).write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read as an adapter of PEFT"):
        convert_checkpoint(tmp_path / "empty", tmp_path / "out", base=base.reference)
    with pytest.raises(CheckpointError, match=r"is an adapter of PEFT\. Give --base"):
        convert_checkpoint(tmp_path / "empty", tmp_path / "out", architecture="ViT-B-32")
    tuned = save_tuned(tmp_path / "tuned", base)
    with pytest.raises(CheckpointError, match="does not consist of the factors of LoRA"):
        export_full(f"local-dir:{tuned}", tmp_path / "out", format="peft")
    other = loaded(save_siglip(tmp_path / "other"))  # with a class token
    delta = save_lora(tmp_path / "delta", other)
    with pytest.raises(CheckpointError, match="cannot be exported to transformers: there is a tensor"):
        export_full(f"local-dir:{delta}", tmp_path / "out", format="peft")
