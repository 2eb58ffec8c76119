"""Exports: what the other library computes by the card's lines, what is refused, and what is left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.coca_model import CoCa
from open_clip.model import CLIP, CustomTextCLIP
from PIL import Image
from transformers import AutoModel, AutoProcessor, CLIPModel, SiglipModel

from sds_clip.models.checkpoints.delta import save_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.choices import ExportFormat
from sds_clip.models.clip.text_map import fold
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.check import AT_LEAST
from sds_clip.models.export.write import export_full
from sds_clip.models.images.decode import decode_image
from tests.checkpoints import (
    PREPROCESS,
    SIGLIP,
    TINY,
    save_checkpoint,
    save_resnet,
    save_siglip,
    save_tiny_clip,
    save_word_tokenizer,
    tiny_network,
)
from tests.deltas import save_tuned
from tests.exports import ARCHITECTURES, TEXTS, by_card, by_ours, cosines, pictures, save_random

FORMATS: tuple[ExportFormat, ...] = ("transformers", "onnx")


def save_tiny_siglip(folder: Path) -> Path:
    """SigLIP in small, as transformers has it: without a class token."""
    vision = {**SIGLIP["vision_cfg"], "timm_model_name": "tiny_siglip_vit", "image_size": 32}
    config = {**SIGLIP, "vision_cfg": vision}
    torch.manual_seed(0)
    network = CustomTextCLIP(
        **{key: value for key, value in deepcopy(config).items() if key != "custom_text"}
    )
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    save_checkpoint(folder, network.state_dict(), config, preprocess)
    save_word_tokenizer(folder)
    return folder


def save_any(kind: str, folder: Path) -> str:
    match kind:
        case "gelu" | "quickgelu":
            return str(save_tiny_clip(folder, quick_gelu=kind == "quickgelu"))
        case "siglip":
            return str(save_tiny_siglip(folder))
        case "resnet":
            return str(save_resnet(folder))
        case "coca":
            return str(coca(folder))
    return kind


def as_rgb() -> list[Image.Image]:
    return [decode_image(file) for file in pictures()]


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checkpoint", ["base", "delta"])
@pytest.mark.parametrize("kind", ["gelu", "quickgelu", "siglip", "demo"])
def test_transformers_alone_computes_the_same(kind: str, checkpoint: str, tmp_path: Path) -> None:
    reference = save_any(kind, tmp_path / "base")
    if checkpoint == "delta":
        reference = str(save_tuned(tmp_path / "delta", load_clip(reference, precision="float32")))
    exported = export_full(reference, tmp_path / "exported", format="transformers")
    assert min(cosines(by_ours(reference), by_card(exported))) >= AT_LEAST


@pytest.mark.parametrize("kind", ["gelu", "quickgelu", "siglip", "resnet", "coca"])
def test_open_clip_alone_computes_the_same(kind: str, tmp_path: Path) -> None:
    reference = save_any(kind, tmp_path / "base")
    exported = export_full(reference, tmp_path / "exported", format="open_clip")
    assert min(cosines(by_ours(reference), by_card(exported))) >= AT_LEAST


@pytest.mark.parametrize(
    "kind", ["siglip", *(pytest.param(kind, marks=pytest.mark.long) for kind in ("gelu", "resnet"))]
)
def test_onnxruntime_alone_computes_the_same(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    reference = str(
        save_tuned(tmp_path / "delta", load_clip(save_any(kind, tmp_path / "base"), precision="float32"))
    )
    exported = export_full(reference, tmp_path / "exported", format="onnx")
    images, texts = by_card(exported)
    assert min(cosines(by_ours(reference), (images, texts))) >= AT_LEAST
    torch.testing.assert_close(images.norm(dim=-1), torch.ones(len(images)))
    stated = json.loads((exported / "open_clip_config.json").read_text())
    clip = load_clip(reference)
    assert (stated["logit_scale"], stated["logit_bias"]) == (clip.logit_scale, clip.logit_bias)


@pytest.mark.long
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_published_architectures_and_deltas_of_them_agree(
    architecture: str, format: ExportFormat, tmp_path: Path
) -> None:
    base = str(save_random(architecture, tmp_path / "base"))
    delta = str(save_tuned(tmp_path / "delta", load_clip(base, precision="float32")))
    for reference in (base, delta):
        exported = export_full(
            reference, tmp_path / Path(reference).with_suffix(".exported").name, format=format
        )
        assert min(cosines(by_ours(reference), by_card(exported))) >= AT_LEAST


@pytest.mark.parametrize(("kind", "model"), [("quickgelu", CLIPModel), ("siglip", SiglipModel)])
def test_scores_in_transformers_are_ours_with_scale_and_bias(kind: str, model: type, tmp_path: Path) -> None:
    reference = save_any(kind, tmp_path / "base")
    exported = export_full(reference, tmp_path / "exported", format="transformers")
    theirs = AutoModel.from_pretrained(exported).eval()
    assert type(theirs) is model
    processor = AutoProcessor.from_pretrained(exported, backend="pil")
    inputs = processor(
        text=TEXTS, images=as_rgb(), padding="max_length", truncation=True, return_tensors="pt"
    )
    clip = load_clip(reference, precision="float32")
    images, texts = by_ours(reference)
    expected = clip.logit_scale * images @ texts.T + (clip.logit_bias or 0)
    with torch.no_grad():
        torch.testing.assert_close(theirs(**inputs).logits_per_image, expected, atol=1e-3, rtol=1e-4)


def test_pixels_of_pillow_are_equal_and_of_torchvision_nearly(tmp_path: Path) -> None:
    reference = str(save_tiny_clip(tmp_path / "base"))
    exported = export_full(reference, tmp_path / "exported", format="transformers")
    clip = load_clip(reference, precision="float32")
    ours = torch.stack([clip.preprocess(picture) for picture in as_rgb()])
    for backend, levels in (("pil", 0.001), ("torchvision", 3)):
        processor = AutoProcessor.from_pretrained(exported, backend=backend)
        pixels = processor(images=as_rgb(), return_tensors="pt")["pixel_values"]
        assert (pixels - ours).abs().max() * 255 * 0.26 < levels


def test_text_map_that_was_folded_is_exported_with_the_projection(tmp_path: Path) -> None:
    base = load_clip(save_any("siglip", tmp_path / "base"), precision="float32")
    tuned = deepcopy(base.network)
    fold(tuned, torch.eye(64) + 0.1 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    delta = str(save_delta(tmp_path / "delta", base, tuned, configuration={}, data={}, metrics={}))
    exported = export_full(delta, tmp_path / "exported", format="transformers")
    ours, theirs = by_ours(delta), by_card(exported)
    assert min(cosines(ours, theirs)) >= AT_LEAST
    assert F.cosine_similarity(by_ours(str(tmp_path / "base"))[1], theirs[1]).min() < 0.99


def coca(folder: Path) -> Path:
    config = open_clip.get_model_config("coca_ViT-B-32")
    config.pop("custom_text")
    config["vision_cfg"] |= {"width": 64, "layers": 1, "head_width": 32, "attn_pooler_heads": 2}
    for part in ("text_cfg", "multimodal_cfg"):
        config[part] |= {"width": 64, "layers": 1, "heads": 2}
    config["text_cfg"]["vocab_size"] = config["multimodal_cfg"]["vocab_size"] = 49408
    network = CoCa(**deepcopy(config))
    # open_clip leaves these as it finds the memory, so they may not be finite.
    torch.nn.init.normal_(network.text_decoder.text_projection)
    return save_checkpoint(folder, network.state_dict(), {**config, "custom_text": True})


def variant(folder: Path, *, preprocess: dict[str, Any] | None = None, **towers: dict[str, Any]) -> Path:
    """A tiny CLIP that differs in its configuration."""
    config = {**TINY, **{tower: {**TINY[tower], **options} for tower, options in towers.items()}}
    torch.manual_seed(0)
    weights = CLIP(**deepcopy(config)).state_dict()
    return save_checkpoint(folder, weights, config, {**PREPROCESS, **(preprocess or {})})


@pytest.mark.parametrize(
    ("save", "reason"),
    [
        (save_resnet, "ResNet"),
        (save_siglip, "cls_token"),
        (lambda folder: variant(folder, vision_cfg={"pool_type": "avg"}), "vision_cfg.pool_type 'avg'"),
        (lambda folder: variant(folder, text_cfg={"ls_init_value": 0.1}), "text_cfg.ls_init_value"),
        (lambda folder: variant(folder, text_cfg={"proj_bias": True}), "text_cfg.proj_bias"),
        (lambda folder: variant(folder, vision_cfg={"image_size": [32, 48]}), "not square"),
        (lambda folder: variant(folder, preprocess={"resize_mode": "longest"}), "longest"),
        (lambda folder: variant(folder, text_cfg={"tokenizer_kwargs": {"reduction_mask": "simple"}}), "reduction_mask"),
    ],
)  # fmt: skip
def test_what_transformers_lacks_is_refused_with_the_reason(save: Any, reason: str, tmp_path: Path) -> None:
    reference = str(save(tmp_path / "base"))
    with pytest.raises(CheckpointError) as refused:
        export_full(reference, tmp_path / "exported", format="transformers")
    assert reason in str(refused.value)
    assert "--format" in str(refused.value)
    assert left_in(tmp_path) == ["base"]


def test_coca_is_refused(tmp_path: Path) -> None:
    reference = str(coca(tmp_path / "base"))
    with pytest.raises(CheckpointError, match="CoCa"):
        export_full(reference, tmp_path / "exported", format="transformers")
    assert left_in(tmp_path) == ["base"]


def test_export_that_computes_something_else_is_refused_with_tower_and_cosine(tmp_path: Path) -> None:
    """The words' tokenizer ends a text with token 1, so that open_clip reads the feature at the largest word."""
    text = {"vocab_size": 40, "context_length": 12, "hf_tokenizer_name": "words"}
    save_word_tokenizer(variant(tmp_path / "base", text_cfg=text))
    with pytest.raises(
        CheckpointError, match=r"other text embeddings.* 0\.\d+, and must be at least 0\.99999"
    ):
        export_full(str(tmp_path / "base"), tmp_path / "exported", format="transformers")
    assert left_in(tmp_path) == ["base"]


@pytest.mark.parametrize("format", FORMATS)
def test_existing_folder_is_never_overwritten(format: ExportFormat, tmp_path: Path) -> None:
    (tmp_path / "exported").mkdir()
    with pytest.raises(CheckpointError, match="exists"):
        export_full("demo", tmp_path / "exported", format=format)
    assert left_in(tmp_path / "exported") == []


def test_weights_in_half_precision_are_exported_in_float32(tmp_path: Path) -> None:
    weights = {name: value.half() for name, value in tiny_network().state_dict().items()}
    reference = str(save_checkpoint(tmp_path / "base", weights, TINY))
    exported = export_full(reference, tmp_path / "exported", format="transformers")
    model = AutoModel.from_pretrained(exported)
    assert {value.dtype for value in model.parameters()} == {torch.float32}


@pytest.mark.long
@pytest.mark.slow
def test_a_kill_leaves_no_folder_that_looks_finished(tmp_path: Path) -> None:
    out = tmp_path / "exported"
    command = [
        sys.executable,
        "-m",
        "sds_clip",
        "export",
        "demo",
        "--format",
        "transformers",
        "--out",
        str(out),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        while not list(tmp_path.glob(".exported.*/*")) and running.poll() is None:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    assert not out.exists()
    export_full("demo", out, format="transformers")
    assert min(cosines(by_ours("demo"), by_card(out))) >= AT_LEAST
