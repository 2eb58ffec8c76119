from __future__ import annotations

import numpy as np
import pytest
import torch

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.encode import encode_texts
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.quantize import MARGIN, range_of, to_binary, to_int8, to_ubinary, to_uint8

EMBEDDINGS = np.array([[0.5, -0.25, 0.001, 0.9], [-0.5, 0.0, -0.9, 0.002]], dtype=np.float32)


def test_int8_is_the_coordinate_over_the_range_and_ends_at_127() -> None:
    expected = [[127, -64, 0, 127], [-127, 0, -127, 1]]
    assert to_int8(EMBEDDINGS, 0.5).tolist() == expected
    assert to_uint8(EMBEDDINGS, 0.5).tolist() == [[code + 128 for code in row] for row in expected]


def test_bits_are_signs_with_the_first_coordinate_highest() -> None:
    rows = np.array([[1, -1, -1, -1, -1, -1, 1, 1], [-1, 1, 0, 1, -1, -1, -1, -1]], dtype=np.float32)
    assert to_ubinary(rows).tolist() == [[0b1000_0011], [0b0101_0000]]
    assert to_binary(rows).tolist() == [[0b1000_0011 - 128], [0b0101_0000 - 128]]
    np.testing.assert_array_equal(np.unpackbits(to_ubinary(rows), axis=1), rows > 0)


def test_last_byte_of_an_odd_length_is_filled_with_zeros() -> None:
    assert to_ubinary(np.ones((1, 10), dtype=np.float32)).tolist() == [[0xFF, 0b1100_0000]]


def test_range_is_the_largest_coordinate_of_images_and_texts_and_a_margin() -> None:
    small, large = torch.tensor([[0.6, 0.64, 0.48]]), torch.tensor([[0.6, 0.0, -0.8]])
    assert range_of(Golden(0, small, large)) == pytest.approx(MARGIN * 0.8)
    assert range_of(Golden(0, large, small)) == pytest.approx(MARGIN * 0.8)
    assert range_of(Golden(0, small, small)) == pytest.approx(MARGIN * 0.64)


def test_range_of_shorter_embeddings_is_that_of_cut_and_normalised_ones() -> None:
    golden = Golden(0, torch.tensor([[0.3, 0.4, 0.866]]), torch.tensor([[0.6, 0.8, 0.0]]))
    assert range_of(golden, 2) == pytest.approx(MARGIN * 0.8)


def test_range_of_the_demo_model_holds_its_embeddings_and_keeps_their_cosines() -> None:
    clip = load_clip("demo", device="cpu", precision="float32")
    value_range = range_of(Golden.of(clip))
    colours = ["red", "blue", "green", "black", "pink", "lime"]
    texts = [f"a {one} circle above a {other} square" for one in colours for other in colours]
    embeddings = encode_texts(clip, texts).numpy()
    codes = to_int8(embeddings, value_range).astype(np.int64)
    assert np.abs(codes).max() < 127
    np.testing.assert_allclose(
        codes @ codes.T * (value_range / 127) ** 2, embeddings @ embeddings.T, atol=0.01
    )
