from pathlib import Path

import pytest
import torch
from PIL import Image

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.model import Clip


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Five pictures of different sizes and modes; the fourth has the pixels of the first."""
    noise = [Image.effect_noise((50 + 9 * number, 40), 60 + number) for number in range(4)]
    return [
        noise[0].convert("RGB"),
        noise[1].convert("RGBA"),
        noise[2].convert("P"),
        noise[0].convert("RGB"),
        noise[3],
    ]


@pytest.fixture
def tiny_clip(tiny_folder: Path) -> Clip:
    """A model of its own for each test, which may hook into it."""
    return load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")


def test_images_equal_one_by_one_encoding(tiny_clip: Clip, pictures: list[Image.Image]) -> None:
    features = encode_images(tiny_clip, pictures, batch_size=2)
    assert features.dtype == torch.float32
    for picture, row in zip(pictures, features, strict=True):
        pixels = tiny_clip.preprocess(picture.convert("RGB"))
        torch.testing.assert_close(row, tiny_clip.encode_image(pixels[None])[0], atol=1e-6, rtol=0)
        assert float(row.norm()) == pytest.approx(1, abs=1e-5)


def test_equal_pixels_get_equal_features_in_different_batches(
    tiny_clip: Clip, pictures: list[Image.Image]
) -> None:
    features = encode_images(tiny_clip, pictures, batch_size=3)
    assert torch.equal(features[0], features[3])
    assert not torch.equal(features[0], features[1])


def test_texts_equal_one_by_one_encoding(tiny_clip: Clip) -> None:
    texts = ["a red circle", "a dog", "a red circle", "blue", "  a  dog "]
    features = encode_texts(tiny_clip, texts, batch_size=2)
    for text, row in zip(texts, features, strict=True):
        torch.testing.assert_close(
            row, tiny_clip.encode_text(tiny_clip.tokenizer([text]))[0], atol=1e-6, rtol=0
        )
    assert torch.equal(features[0], features[2])


def test_nothing_gives_no_rows(tiny_clip: Clip) -> None:
    assert encode_images(tiny_clip, []).shape == (0, tiny_clip.embed_dim)
    assert encode_texts(tiny_clip, []).shape == (0, tiny_clip.embed_dim)
