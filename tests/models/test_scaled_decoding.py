"""JPEGs that are decoded at a smaller size: which, how small, and how near the model's pixels stay."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, ImageOps

from sds_clip.models.checkpoints.load import load_clip, load_served
from sds_clip.models.clip.precision import PrecisionError
from sds_clip.models.clip.preprocess import Preprocess
from sds_clip.models.images.decode import (
    ImageError,
    ImageLimits,
    decode_file,
    decode_image,
    decoding_size_bytes,
    open_image,
)

LIMITS = ImageLimits()
KINDS = {
    "baseline": {},
    "4:4:4": {"subsampling": 0},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "progressive 4:4:4": {"progressive": True, "subsampling": 0},
}


def scene(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture without symmetry that has edges and fine detail, as a photo does."""
    generator = np.random.default_rng(width * height)
    coarse = generator.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    grain = generator.normal(0, 8, (height, width, 1))
    return Image.fromarray((image + grain).clip(0, 255).astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image, orientation: int = 1, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, **{"quality": 90, **options})
    return file.getvalue()


def preprocess(size: int | tuple[int, int], mode: str = "shortest") -> Preprocess:
    return Preprocess(image_transform_v2(PreprocessCfg(size=size, resize_mode=mode), is_train=False))


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0))


@pytest.mark.parametrize(
    ("size", "least_side", "decoded"),
    [
        ((896, 896), 448, (448, 448)),
        ((895, 2000), 448, (895, 2000)),
        ((1792, 2000), 448, (448, 500)),
        ((1792, 2001), 448, (1792, 2001)),
        ((1792, 2002), 448, (896, 1001)),
        ((1788, 4000), 448, (894, 2000)),
        ((3584, 4000), 448, (448, 500)),
        ((9000, 9000), 448, (1125, 1125)),
        ((9004, 9000), 448, (2251, 2250)),
        ((5000, 900), 448, (2500, 450)),
        ((5000, 100), 448, (5000, 100)),
        ((3000, 1536), 768, (1500, 768)),
        ((1, 1), 448, (1, 1)),
        ((16, 8), 1, (2, 1)),
    ],
)
def test_a_jpeg_is_scaled_while_both_sides_divide_and_the_shorter_stays_as_long_as_was_asked(
    size: tuple[int, int], least_side: int, decoded: tuple[int, int]
) -> None:
    image = decode_image(
        jpeg(Image.new("L", size)), ImageLimits(max_pixels=85_000_000), least_side=least_side
    )
    assert image.size == decoded


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_without_a_scale_the_pixels_are_the_same(kind: str, mode: str) -> None:
    data = jpeg(scene(300, 222, mode), 6, **KINDS[kind])
    whole = np.asarray(decode_image(data, LIMITS))
    np.testing.assert_array_equal(np.asarray(decode_image(data, LIMITS, least_side=112)), whole)
    np.testing.assert_array_equal(np.asarray(decode_image(data, LIMITS, least_side=0)), whole)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF"])
def test_other_formats_are_never_scaled(format: str) -> None:
    file = io.BytesIO()
    scene(200, 160).save(file, format)
    whole = decode_image(file.getvalue())
    assert decode_image(file.getvalue(), least_side=8) == whole


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_models_pixels_stay_near_those_of_the_whole_picture(kind: str, mode: str) -> None:
    data = jpeg(scene(904, 1200, mode), **KINDS[kind])
    near, whole = (preprocess(64)(decode_image(data, least_side=side)) for side in (128, 0))
    assert not torch.equal(near, whole)
    assert cosine(near, whole) > 0.9999


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scaled_picture_is_turned_upright(orientation: int) -> None:
    data = jpeg(scene(640, 480), orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    image = decode_image(data, least_side=120)
    assert image.size == (upright.width // 4, upright.height // 4)
    assert cosine(preprocess(60)(image), preprocess(60)(upright)) > 0.9999


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("size", [(1600, 1600), (2400, 900), (700, 2100), (1036, 912)])
@pytest.mark.parametrize("input_size", [(64, 64), (96, 64)])
def test_every_way_to_resize_takes_scaled_pictures(
    mode: str, size: tuple[int, int], input_size: tuple[int, int]
) -> None:
    data = jpeg(scene(*size))
    near, whole = (preprocess(input_size, mode)(decode_image(data, least_side=side)) for side in (192, 0))
    assert near.shape == (3, *input_size)
    assert not torch.equal(near, whole)
    assert cosine(near, whole) > 0.9999


def test_a_file_cut_at_any_byte_is_refused_or_whole_as_without_a_scale() -> None:
    data = jpeg(scene(40, 24), progressive=True)
    for length in range(len(data)):
        outcomes = []
        for side in (0, 6):
            try:
                outcomes.append(decode_image(data[:length], least_side=side).size)
            except ImageError as error:
                outcomes.append(error.code)
        if outcomes[0] == (40, 24):
            assert outcomes[1] == (10, 6)
        else:
            assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("options", "counted"),
    [({}, 8 / 16), ({"progressive": True}, 8 + 4 / 16)],
    ids=["baseline", "progressive"],
)
def test_memory_is_counted_for_the_pixels_that_are_made_and_for_all_coefficients(
    options: dict[str, object], counted: float
) -> None:
    data = jpeg(Image.new("RGB", (2048, 2048)), **options)
    whole, scaled = (open_image(data, LIMITS, least_side=side) for side in (0, 512))
    file_bytes = 3 * len(scaled.data)
    size_bytes = decoding_size_bytes(scaled, max_side=0) - file_bytes
    assert size_bytes == counted * 2048**2
    assert size_bytes < decoding_size_bytes(whole, max_side=0) - file_bytes
    assert decode_file(scaled).size == (512, 512)


@pytest.mark.parametrize(
    ("precision", "decoding", "side"),
    [
        ("float32", "full", 0),
        ("bfloat16", "scaled", 64),
        ("bf16", "scaled", 64),
        ("float32+scaled", "scaled", 64),
        ("bfloat16+full", "full", 0),
    ],
)
def test_served_weights_scale_unless_they_are_float32_or_told_otherwise(
    tiny_folder: Path, precision: str, decoding: str, side: int
) -> None:
    clip = load_served(f"local-dir:{tiny_folder}", device="cpu", precision=precision)
    assert (clip.decoding, clip.least_side) == (decoding, side)
    assert clip.version == load_clip(f"local-dir:{tiny_folder}", device="cpu").version


def test_weights_of_training_and_evaluation_never_scale(tiny_folder: Path) -> None:
    clip = load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="bfloat16")
    assert (clip.decoding, clip.least_side) == ("full", 0)
    with pytest.raises(PrecisionError, match="cannot be 'float32\\+scaled'"):
        load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32+scaled")


@pytest.mark.parametrize("precision", ["float32+", "float32+half", "+scaled", "int8+full"])
def test_a_way_to_decode_that_is_none_is_refused(tiny_folder: Path, precision: str) -> None:
    with pytest.raises(PrecisionError, match=r"The precision cannot be"):
        load_served(f"local-dir:{tiny_folder}", device="cpu", precision=precision)
