"""Whole answers against open_clip, for the models that people use: ViT-B-32 (GELU, QuickGELU), SigLIP, the demo.

Random weights put all embeddings close together, so cosines are also compared after the mean is taken away,
and so is the order of the neighbours.
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from starlette.testclient import TestClient
from torch import Tensor

from sds_clip.app.main import create_app
from sds_clip.app.settings import Settings
from sds_clip.models.checkpoints.load import load_clip
from tests.app.conftest import base64_of

TEXTS = ["a photo of a dog", "a red cube left of a blue ball", "two cats on the green cube", "an image"]
LABELS = ["dog", "cat", "red ball"]
TEMPLATES = ["a photo of a {}.", "the {}"]


def picture(mode: str, size: tuple[int, int], kind: str, seed: int) -> bytes:
    """A smooth picture, so that resizing it means something."""
    random = np.random.default_rng(seed)
    noise = PIL.Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    file = io.BytesIO()
    noise.resize(size, PIL.Image.Resampling.BICUBIC).convert(mode).save(file, kind)
    return file.getvalue()


IMAGES = [
    picture("RGB", (640, 480), "JPEG", 1),
    picture("CMYK", (300, 500), "JPEG", 2),
    picture("L", (224, 224), "JPEG", 3),
    picture("RGBA", (97, 333), "PNG", 4),
    picture("P", (400, 100), "PNG", 5),
    picture("LA", (31, 17), "PNG", 6),
    picture("1", (256, 256), "PNG", 7),
    picture("RGB", (500, 375), "WEBP", 8),
    picture("RGBA", (64, 64), "WEBP", 9),
]


class Reference:
    """What open_clip computes from the same folder."""

    def __init__(self, reference: str) -> None:
        model, _, preprocess = open_clip.create_model_and_transforms(reference)
        tokenizer = open_clip.get_tokenizer(reference)
        model.eval()
        with torch.no_grad():
            # RGB first, as open_clip's own loaders decode ("pilrgb"): its transform alone would resize a palette.
            pictures = [PIL.Image.open(io.BytesIO(data)).convert("RGB") for data in IMAGES]
            pixels = torch.stack([preprocess(picture) for picture in pictures])
            self.images: Tensor = model.encode_image(pixels, normalize=True)
            self.texts: Tensor = model.encode_text(tokenizer(TEXTS), normalize=True)
            self.classes: Tensor = open_clip.build_zero_shot_classifier(model, tokenizer, LABELS, TEMPLATES)
            self.scale: Tensor = model.logit_scale.exp()
            self.bias: Tensor | None = model.logit_bias

    def logits(self, classifier: Tensor) -> Tensor:
        logits = self.scale * self.images @ classifier
        return logits if self.bias is None else logits + self.bias

    def probabilities(self, classifier: Tensor) -> Tensor:
        logits = self.logits(classifier)
        return logits.softmax(dim=1) if self.bias is None else logits.sigmoid()


@contextmanager
def served(reference: str, tmp_path: Path) -> Iterator[TestClient]:
    clip = load_clip(reference, device="cpu", precision="float32")
    app = create_app(Settings(data_dir=tmp_path), {"model": clip})
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def centred_cosines(features: Tensor) -> Tensor:
    centred = F.normalize(features - features.mean(dim=0), dim=-1)
    return centred @ centred.T


def check(reference: str, tmp_path: Path) -> None:
    expected = Reference(reference)
    images = [base64_of(data) for data in IMAGES]
    with served(reference, tmp_path) as client:
        embedded = client.post("/embed", json={"images": images}).json()
        texts = client.post("/embed", json={"texts": TEXTS}).json()
        matched = client.post("/match", json={"images": images, "texts": TEXTS}).json()
        request = {"images": images, "labels": LABELS, "templates": TEMPLATES, "top_k": len(LABELS)}
        classified = client.post("/classify", json=request).json()
    got = torch.tensor([result["embedding"] for result in embedded["results"]])
    torch.testing.assert_close(got, expected.images, atol=1e-5, rtol=0)
    got_texts = torch.tensor([result["embedding"] for result in texts["results"]])
    torch.testing.assert_close(got_texts, expected.texts, atol=1e-5, rtol=0)
    torch.testing.assert_close(centred_cosines(got), centred_cosines(expected.images), atol=1e-3, rtol=0)
    assert torch.equal(centred_cosines(got).argsort(dim=1), centred_cosines(expected.images).argsort(dim=1))
    scores = torch.tensor([result["scores"] for result in matched["results"]])
    torch.testing.assert_close(scores, expected.images @ expected.texts.T, atol=1e-5, rtol=0)
    probabilities = torch.tensor([result["probabilities"] for result in matched["results"]])
    torch.testing.assert_close(probabilities, expected.probabilities(expected.texts.T), atol=2e-4, rtol=0)
    for result, row in zip(
        classified["results"], expected.probabilities(expected.classes).tolist(), strict=True
    ):
        found = {prediction["label"]: prediction["probability"] for prediction in result["predictions"]}
        assert [found[label] for label in LABELS] == pytest.approx(row, abs=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("quick_gelu", [False, pytest.param(True, marks=pytest.mark.long)])
def test_vit_b_32_answers_as_open_clip_does(vit_b_32_folder: Path, tmp_path: Path, quick_gelu: bool) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    config = json.loads((vit_b_32_folder / "open_clip_config.json").read_text())
    config["model_cfg"]["quick_gelu"] = quick_gelu
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    (folder / "open_clip_model.safetensors").symlink_to(vit_b_32_folder / "open_clip_model.safetensors")
    check(f"local-dir:{folder}", tmp_path / "data")


def test_a_siglip_style_model_answers_with_open_clips_sigmoids(siglip_folder: Path, tmp_path: Path) -> None:
    check(f"local-dir:{siglip_folder}", tmp_path)


def test_the_demo_model_answers_as_open_clip_does(tmp_path: Path) -> None:
    check(f"local-dir:{Path(__file__).parents[2] / 'demo' / 'student'}", tmp_path)
