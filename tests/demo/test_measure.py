from pathlib import Path

import pytest
import torch
from open_clip import create_model_from_pretrained, get_tokenizer
from PIL import Image

from sds_clip.demo.measure import StudentScores, measure
from sds_clip.demo.sets import CLASS_TEMPLATES, classification_set
from sds_clip.demo.validation import load_validation, validate
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.load import load_clip

REFERENCE = f"local-dir:{Path(__file__).parents[2] / 'demo' / 'student'}"
PER_KIND = 20


@pytest.fixture(scope="module")
def measured() -> StudentScores:
    return measure(load_clip("demo", device="cpu", precision="float32"), Split.VALIDATION, PER_KIND)


def test_outcomes_stand_in_the_sets_order(measured: StudentScores) -> None:
    assert measured.kinds == [kind for kind in KINDS for _ in range(PER_KIND)]
    assert len(measured.text) == len(measured.image) == len(measured.kinds)


def test_group_is_text_and_image_together() -> None:
    kinds = ["objects"] * 4

    margins = [1.0, 0.5, 0.0, -1.0]
    measured = StudentScores(kinds, [True, True, False, False], [True, False, True, False], 0.0, 0.0, margins)
    assert measured.group == [True, False, False, False]
    assert measured.group_match == [True, True, False, False]


def test_retrieval_and_winoground_are_what_open_clip_computes(
    measured: StudentScores, reference: tuple[torch.nn.Module, object]
) -> None:
    model, _ = reference
    validation = load_validation(get_tokenizer(REFERENCE), Split.VALIDATION, items_per_kind=PER_KIND)
    expected = validate(model, validation)

    both_ways = (expected["image_to_text"] + expected["text_to_image"]) / 2
    # Rounding may turn one comparison.
    assert measured.retrieval == pytest.approx(both_ways, abs=1.01 / 512)
    for number, kind in enumerate(KINDS):
        items = slice(number * PER_KIND, (number + 1) * PER_KIND)
        for score in ("text", "image", "group", "group_match"):
            share = sum(getattr(measured, score)[items]) / PER_KIND
            assert share == pytest.approx(expected[f"{kind}_{score}"], abs=1.01 / PER_KIND)


def test_zero_shot_is_what_open_clip_computes(
    measured: StudentScores, reference: tuple[torch.nn.Module, object]
) -> None:
    model, preprocess = reference
    tokenizer = get_tokenizer(REFERENCE)
    examples = classification_set(Split.VALIDATION)
    with torch.inference_mode():
        images = model.encode_image(torch.stack([preprocess(Image.fromarray(i)) for i in examples.images]))
        classes = []
        for label in examples.labels:
            texts = tokenizer([template.format(label) for template in CLASS_TEMPLATES])
            classes.append(model.encode_text(texts, normalize=True).mean(dim=0))
        scores = images @ torch.nn.functional.normalize(torch.stack(classes), dim=-1).T
    accuracy = (scores.argmax(dim=1) == torch.tensor(examples.targets)).float().mean().item()

    assert measured.zero_shot == pytest.approx(accuracy, abs=1.01 / 512)


@pytest.fixture(scope="module")
def reference() -> tuple[torch.nn.Module, object]:
    model, preprocess = create_model_from_pretrained(REFERENCE)
    return model.eval(), preprocess
