from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from models.clip import Clip
from models.evaluation.errors import EvaluationError
from models.evaluation.features import encode_images, encode_texts


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Five images of different sizes and modes; the fourth has the pixels of the first."""
    noise = [Image.effect_noise((50 + 9 * number, 40), 60 + number) for number in range(4)]
    images = [
        noise[0].convert("RGB"),
        noise[1].convert("RGBA"),
        noise[2].convert("P"),
        noise[0].convert("RGB"),
        noise[3],
    ]
    paths = [tmp_path / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        image.save(path)
    return paths


def counting(clip: Clip) -> tuple[Clip, list[int]]:
    """The same model, and how many images were preprocessed between two forwards."""
    waiting: list[int] = [0]

    def preprocess(image: Image.Image) -> Tensor:
        waiting[-1] += 1
        return clip.preprocess(image)

    def forward_begins(*_: object) -> None:
        waiting.append(0)

    clip.network.visual.register_forward_pre_hook(forward_begins)
    return replace(clip, preprocess=preprocess), waiting


def test_images_equal_one_by_one_encoding(tiny_clip: Clip, files: list[Path]) -> None:
    features = encode_images(tiny_clip, files, batch_size=2)
    assert features.dtype == torch.float32
    for path, row in zip(files, features, strict=True):
        pixels = tiny_clip.preprocess(Image.open(path).convert("RGB"))
        torch.testing.assert_close(row, tiny_clip.encode_image(pixels[None])[0], atol=1e-6, rtol=0)
        assert float(row.norm()) == pytest.approx(1, abs=1e-5)


def test_pictures_in_memory_equal_their_files(tiny_clip: Clip, files: list[Path]) -> None:
    pictures = [Image.open(path) for path in files]
    torch.testing.assert_close(encode_images(tiny_clip, pictures), encode_images(tiny_clip, files))


def test_equal_pixels_get_equal_features_in_different_batches(tiny_clip: Clip, files: list[Path]) -> None:
    features = encode_images(tiny_clip, files, batch_size=3)
    assert torch.equal(features[0], features[3])
    assert not torch.equal(features[0], features[1])


def test_a_file_named_twice_is_decoded_once_in_batches(tiny_clip: Clip, files: list[Path]) -> None:
    clip, preprocessed = counting(tiny_clip)
    features = encode_images(clip, [*files, *files[::-1]], batch_size=2)
    assert preprocessed == [2, 2, 1, 0]
    assert torch.equal(features[:5], features[5:].flip(0))


def test_orientation_is_not_applied(tiny_clip: Clip, files: list[Path]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = files[0].with_name("turned.png")
    Image.open(files[0]).save(turned, exif=exif)
    features = encode_images(tiny_clip, [files[0], turned])
    assert torch.equal(features[0], features[1])


def test_texts_equal_one_by_one_encoding(tiny_clip: Clip) -> None:
    texts = ["a red circle", "a dog", "a red circle", "blue", "  a  dog "]
    features = encode_texts(tiny_clip, texts, batch_size=2)
    for text, row in zip(texts, features, strict=True):
        torch.testing.assert_close(
            row, tiny_clip.encode_text(tiny_clip.tokenizer([text]))[0], atol=1e-6, rtol=0
        )
    assert torch.equal(features[0], features[2])


def test_progress_reaches_the_number_of_files(tiny_clip: Clip, files: list[Path]) -> None:
    seen: list[tuple[int, int]] = []
    encode_images(tiny_clip, files, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_nothing_gives_no_rows(tiny_clip: Clip) -> None:
    assert encode_images(tiny_clip, []).shape == (0, tiny_clip.embed_dim)
    assert encode_texts(tiny_clip, []).shape == (0, tiny_clip.embed_dim)


def test_a_missing_file_is_named(tiny_clip: Clip, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"none\.png: cannot be read"):
        encode_images(tiny_clip, [tmp_path / "none.png"])


def test_a_file_that_is_no_image_is_named(tiny_clip: Clip, tmp_path: Path) -> None:
    page = tmp_path / "page.png"
    page.write_text("<html></html>")
    with pytest.raises(EvaluationError, match=r"page\.png: "):
        encode_images(tiny_clip, [page])
