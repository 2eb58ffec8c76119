import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from open_clip.tokenizer import HFTokenizer

from sds_clip.demo.places import UNSAID, place_targets
from sds_clip.demo.sets import training_pairs
from sds_clip.demo.train_student import Recipe, _batch, train_student
from sds_clip.demo.validation import ValidationSet, load_validation

STUDENT = Path(__file__).parents[2] / "demo" / "student"
SHORT = Recipe(steps=3, batch_size=8, warmup_steps=2)


@pytest.fixture(scope="module")
def tokenizer() -> HFTokenizer:
    return open_clip.get_tokenizer(f"local-dir:{STUDENT}")


@pytest.fixture(scope="module")
def small(tokenizer: HFTokenizer) -> ValidationSet:
    return load_validation(tokenizer, pair_count=128, items_per_kind=2)


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.01), (49, 0.5), (99, 1.0), (500, 1.0), (700, 1.0), (850, 0.5), (997, 0.01)]
)
def test_learning_rate_rises_stays_and_falls(step: int, expected: float) -> None:
    recipe = Recipe(steps=1000, learning_rate=1.0, warmup_steps=100, decay_share=0.3)
    assert recipe.learning_rate_at(step) == pytest.approx(expected)


def test_run_stopped_and_resumed_ends_where_a_whole_run_ends(
    tokenizer: HFTokenizer, small: ValidationSet, tmp_path: Path
) -> None:
    plateau = replace(SHORT, decay_share=0.01)
    whole = train_student(plateau, tokenizer, small, tmp_path / "whole")
    train_student(replace(plateau, steps=2), tokenizer, small, tmp_path / "parts")
    resumed = train_student(plateau, tokenizer, small, tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, resumed.state_dict()[name], atol=1e-6), name


def test_finished_run_is_not_trained_again(
    tokenizer: HFTokenizer, small: ValidationSet, tmp_path: Path
) -> None:
    train_student(SHORT, tokenizer, small, tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    train_student(SHORT, tokenizer, small, tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_checkpoint_of_another_recipe_is_refused(
    tokenizer: HFTokenizer, small: ValidationSet, tmp_path: Path
) -> None:
    train_student(SHORT, tokenizer, small, tmp_path)
    with pytest.raises(ValueError, match="another recipe"):
        train_student(replace(SHORT, batch_size=16), tokenizer, small, tmp_path)


@pytest.mark.parametrize(("steps", "message"), [(2, "3 steps done"), (6, "falls already")])
def test_run_whose_rate_has_fallen_keeps_its_length(
    steps: int, message: str, tokenizer: HFTokenizer, small: ValidationSet, tmp_path: Path
) -> None:
    falling = replace(SHORT, decay_share=0.9)
    train_student(falling, tokenizer, small, tmp_path)
    with pytest.raises(ValueError, match=message):
        train_student(replace(falling, steps=steps), tokenizer, small, tmp_path)


def test_heads_train_first_without_comparing(
    tokenizer: HFTokenizer, small: ValidationSet, tmp_path: Path
) -> None:
    scales = []
    for heads_steps in (3, 2):
        recipe = replace(SHORT, heads_steps=heads_steps)
        student = train_student(recipe, tokenizer, small, tmp_path / str(heads_steps))
        scales.append(student.logit_scale.item())
    assert scales[0] == np.float32(np.log(1 / 0.07))  # only the comparison of images and captions uses it
    assert scales[1] != scales[0]


def test_captions_are_followed_by_the_same_with_the_places_exchanged(tokenizer: HFTokenizer) -> None:
    recipe = Recipe(batch_size=256)
    images, tokens, seen, told = _batch(recipe, tokenizer, 3)
    scenes = training_pairs(recipe.seed, 3 * 256, 256).scenes
    assert images.shape == (256, 3, 64, 64)
    assert torch.equal(seen, place_targets(scenes, [True] * 256))
    own, exchanged = told.chunk(2)
    tells = own[:, 0] != UNSAID
    assert torch.equal(own[tells], seen[tells])
    pairs = torch.tensor([len(scene.things) == 2 for scene in scenes])
    assert torch.equal(exchanged[tells & pairs], seen[tells & pairs][:, [2, 3, 0, 1, 4, 6, 5]])
    # The words for relations differ, and nothing else.
    differing = (tokens[:256] != tokens[256:]).sum(dim=1)
    assert (differing[tells & pairs] == 1).all()
    assert (differing[~pairs] == 0).all()


def test_log_holds_retrieval_and_every_winoground_kind(
    tokenizer: HFTokenizer, small: ValidationSet, tmp_path: Path
) -> None:
    train_student(SHORT, tokenizer, small, tmp_path)
    record = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 3
    kinds = {
        f"{kind}_{score}"
        for kind in ("attributes", "objects", "relation")
        for score in ("text", "image", "group")
    }
    assert kinds | {"image_to_text", "text_to_image"} <= record.keys()
    assert all(0 <= record[name] <= 1 for name in kinds)
