import json
import logging
import math
import warnings
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP
from PIL import Image
from safetensors import safe_open

from sds_clip.demo.sets import retrieval_set
from sds_clip.demo.student import model_config, new_student, pixels_to_input, sines_and_cosines
from sds_clip.demo.validation import load_validation, validate
from sds_clip.demo.world import Split

DEMO = Path(__file__).parents[2] / "demo"
REFERENCE = f"local-dir:{DEMO / 'student'}"


@pytest.fixture(scope="module")
def student() -> CLIP:
    model, _, _ = open_clip.create_model_and_transforms(REFERENCE)
    return model.eval()


def test_folder_loads_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        open_clip.create_model_and_transforms(REFERENCE)
        open_clip.get_tokenizer(REFERENCE)
    assert caplog.messages == []


def test_folder_is_what_the_code_describes(student: CLIP) -> None:
    config = json.loads((DEMO / "student" / "open_clip_config.json").read_text())
    assert config["model_cfg"] == model_config(student.vocab_size)
    assert student.vocab_size == len(open_clip.get_tokenizer(REFERENCE).tokenizer)


def test_weights_are_float16_and_small() -> None:
    weights = DEMO / "student" / "open_clip_model.safetensors"
    assert weights.stat().st_size <= 6_600_000
    with safe_open(weights, framework="pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118


def test_whole_demo_stays_small() -> None:
    """The student has 8 MB at most, the teacher and the placebo 14 each; the sets are files too.

    The world of pictures has a limit of its own (tests/demo/emoji/test_shipped.py).
    """
    files = [file for file in DEMO.rglob("*") if file.is_file() and DEMO / "emoji" not in file.parents]
    assert sum(file.stat().st_size for file in files) < 38_000_000


def test_positions_of_words_start_as_sines_and_cosines() -> None:
    table = sines_and_cosines(3, 4, longest=100.0)
    expected = [
        [math.sin(place), math.sin(place / 10), math.cos(place), math.cos(place / 10)] for place in range(3)
    ]
    torch.testing.assert_close(table, torch.tensor(expected))
    positions = new_student(64).positional_embedding.detach()
    torch.testing.assert_close(positions, (2 / 128) ** 0.5 * sines_and_cosines(32, 128))


def test_training_input_is_the_folders_own_transform() -> None:
    _, _, preprocess = open_clip.create_model_and_transforms(REFERENCE)
    images = retrieval_set(Split.VALIDATION, 8).images
    expected = torch.stack([preprocess(Image.fromarray(pixels)) for pixels in images])
    assert torch.allclose(pixels_to_input(torch.from_numpy(images)), expected, atol=1e-6)


def test_padding_does_not_move_a_text(student: CLIP) -> None:
    tokens = open_clip.get_tokenizer(REFERENCE)(["a red circle", "a photo of a blue star above a white ring"])
    other_padding = tokens.clone()
    other_padding[tokens == 0] = 40
    with torch.inference_mode():
        assert torch.allclose(student.encode_text(tokens), student.encode_text(other_padding), atol=1e-5)


def test_word_order_reaches_the_text_features(student: CLIP) -> None:
    tokens = open_clip.get_tokenizer(REFERENCE)(
        ["a red circle and a blue star", "a blue circle and a red star"]
    )
    with torch.inference_mode():
        one, other = student.encode_text(tokens, normalize=True)
    assert (one - other).norm() > 0.01


def test_words_and_places_start_at_one_scale() -> None:
    fresh = new_student(500)
    words, places = (
        table.square().mean().sqrt() for table in (fresh.token_embedding.weight, fresh.positional_embedding)
    )
    assert words.item() == pytest.approx(places.item(), rel=0.1)


def test_held_out_pairs_are_found_in_a_batch_of_128(student: CLIP) -> None:
    scores = validate(student, load_validation(open_clip.get_tokenizer(REFERENCE), Split.HELD_OUT))
    assert scores["image_to_text"] >= 0.8
    assert scores["text_to_image"] >= 0.8


def test_object_is_named_at_every_size_and_mode_of_picture(student: CLIP) -> None:
    _, _, preprocess = open_clip.create_model_and_transforms(REFERENCE)
    tokenizer = open_clip.get_tokenizer(REFERENCE)
    canvas = np.full((64, 64, 3), 238, dtype=np.uint8)
    canvas[22:43, 6:27] = (214, 34, 40)
    square = Image.fromarray(canvas)
    texts = tokenizer(["a red square", "a blue square", "a red ring", "a green star"])
    for image in (square, square.resize((256, 256)), square.convert("RGBA"), square.convert("P")):
        with torch.inference_mode():
            picture = student.encode_image(preprocess(image)[None], normalize=True)
            scores = picture @ student.encode_text(texts, normalize=True).T
        assert scores.argmax() == 0
