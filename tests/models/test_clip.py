from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.scoring import match

TEXTS = ["a red cube on the left", "Two DOGS, and a cat!", "", "a  photo\tof &amp; the_ball " * 20]


def pictures() -> list[PIL.Image.Image]:
    random = np.random.default_rng(0)
    shapes = [(60, 90, 3), (224, 224, 3), (31, 300, 3), (8, 8)]
    return [PIL.Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def assert_encodes_as_open_clip(folder: Path) -> None:
    """Compare every step with `open_clip.create_model_and_transforms` on the same folder."""
    reference = f"local-dir:{folder}"
    clip = load_clip(reference, precision="float32")
    network, _, preprocess = open_clip.create_model_and_transforms(reference)
    network.eval()
    tokens = open_clip.get_tokenizer(reference)(TEXTS)
    pixels = torch.stack([preprocess(picture) for picture in pictures()])
    assert torch.equal(clip.tokenizer(TEXTS), tokens)
    assert torch.equal(torch.stack([clip.preprocess(picture) for picture in pictures()]), pixels)
    with torch.no_grad():
        images, texts = network.encode_image(pixels), network.encode_text(tokens)
    for ours, theirs in (
        (clip.encode_image(pixels, normalize=False), images),
        (clip.encode_text(tokens, normalize=False), texts),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        # Random weights put all embeddings close together: what tells them apart must agree as well.
        torch.testing.assert_close(centred_cosines(ours), centred_cosines(theirs), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        clip.encode_image(pixels), torch.nn.functional.normalize(images, dim=-1), atol=1e-5, rtol=0
    )


def centred_cosines(features: torch.Tensor) -> torch.Tensor:
    centred = torch.nn.functional.normalize(features - features.mean(dim=0), dim=-1)
    return centred @ centred.T


def test_tiny_model_encodes_as_open_clip(tiny_folder: Path) -> None:
    assert_encodes_as_open_clip(tiny_folder)


def test_siglip_style_model_encodes_as_open_clip(siglip_folder: Path) -> None:
    assert_encodes_as_open_clip(siglip_folder)


@pytest.mark.parametrize(
    "quick_gelu", [False, pytest.param(True, marks=pytest.mark.long)], ids=["gelu", "quickgelu"]
)
def test_vit_b_32_encodes_as_open_clip(vit_b_32_folder: Path, tmp_path: Path, quick_gelu: bool) -> None:
    config = json.loads((vit_b_32_folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = quick_gelu
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").symlink_to(vit_b_32_folder / "open_clip_model.safetensors")
    assert_encodes_as_open_clip(tmp_path)
    assert load_clip(f"local-dir:{tmp_path}").architecture == "ViT-B-32"


def test_activation_changes_the_result(tiny_folder: Path, tmp_path: Path) -> None:
    config = json.loads((tiny_folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = True
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    (tmp_path / "open_clip_model.safetensors").symlink_to(tiny_folder / "open_clip_model.safetensors")
    pixels = torch.randn(2, 3, 32, 32)
    plain, quick = (
        load_clip(f"local-dir:{folder}", precision="float32") for folder in (tiny_folder, tmp_path)
    )
    assert (plain.encode_image(pixels) - quick.encode_image(pixels)).abs().max() > 1e-4


def test_siglip_style_probabilities_are_open_clips_sigmoids(siglip_folder: Path) -> None:
    clip = load_clip(f"local-dir:{siglip_folder}", precision="float32")
    network = open_clip.create_model(f"local-dir:{siglip_folder}").eval()
    pixels, tokens = torch.randn(2, 3, 160, 160), clip.tokenizer(TEXTS)
    with torch.no_grad():
        logits, _ = network.get_logits(pixels, tokens)
    result = match(
        clip.encode_image(pixels),
        clip.encode_text(tokens),
        logit_scale=clip.logit_scale,
        logit_bias=clip.logit_bias,
    )
    assert clip.logit_bias == -10
    torch.testing.assert_close(result.logits, logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.probabilities, logits.sigmoid(), atol=1e-6, rtol=1e-4)


def test_siglip_style_padding_is_read_by_the_model(siglip_folder: Path) -> None:
    clip = load_clip(f"local-dir:{siglip_folder}", precision="float32")
    tokens = clip.tokenizer(["a red cube"])
    assert tokens.tolist() == [[3, 8, 11, 1, *[0] * 8]]  # a, red, cube, </s>, then <pad> up to 12
    otherwise_padded = tokens.masked_fill(tokens == 0, 1)
    assert (clip.encode_text(tokens) - clip.encode_text(otherwise_padded)).abs().max() > 1e-3


def test_features_are_float32_unit_vectors_at_every_precision(tiny_folder: Path) -> None:
    for precision in ("float32", "bfloat16"):
        clip = load_clip(f"local-dir:{tiny_folder}", precision=precision)
        for features in (
            clip.encode_image(torch.randn(3, 3, 32, 32)),
            clip.encode_text(clip.tokenizer(TEXTS)),
        ):
            assert features.dtype is torch.float32
            torch.testing.assert_close(features.norm(dim=-1), torch.ones(len(features)))


def test_empty_batches_give_empty_features(tiny_folder: Path) -> None:
    clip = load_clip(f"local-dir:{tiny_folder}")
    assert clip.encode_text(clip.tokenizer([])).shape == (0, 32)
    assert clip.encode_image(torch.zeros(0, 3, 32, 32)).shape == (0, 32)


def test_threads_may_tokenize_at_once(siglip_folder: Path) -> None:
    tokenizer = load_clip(f"local-dir:{siglip_folder}").tokenizer
    expected = tokenizer(TEXTS)
    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(tokens, expected) for tokens in pool.map(tokenizer, [TEXTS] * 200))
