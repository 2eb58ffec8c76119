from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import open_clip
import pytest

import sds_clip.demo.sets
import sds_clip.demo.train_vae
from sds_clip.demo.build import TOKENIZER_CAPTIONS
from sds_clip.demo.lessons import ShapeLessons
from sds_clip.demo.live import EXACT, TAGS
from sds_clip.demo.sets import classification_set, pairs, retrieval_set, training_pairs
from sds_clip.demo.teacher_grid import COUNT, GRID_SEED
from sds_clip.demo.train_student import Recipe, train_student
from sds_clip.demo.train_teacher import TeacherRecipe, load_pool
from sds_clip.demo.train_vae import VaeRecipe, train_vae
from sds_clip.demo.training_set import (
    DISTILLATION_SEED,
    PROPOSED,
    DemoPairs,
    training_captions,
    true_captions,
)
from sds_clip.demo.validation import load_validation
from sds_clip.demo.winoground_sets import two_different, winoground_items
from sds_clip.demo.world import Relation, Scene, Split, combination, combination_split, draw_scene_of

STUDENT = Path(__file__).parents[2] / "demo" / "student"
SOME = 1000  # pairs looked at from either end of a training's data


@cache
def held_out_combinations() -> frozenset[str]:
    """The combinations of all that the held-out part is measured on, and of the teacher's grid."""
    scenes = [scene for item in winoground_items(Split.HELD_OUT) for scene in item.scenes]
    scenes += retrieval_set(Split.HELD_OUT).scenes + pairs(Split.HELD_OUT, GRID_SEED, 0, COUNT).scenes
    single = classification_set(Split.HELD_OUT)
    named = [single.labels[target].split() for target in single.targets]
    return frozenset(
        [*(combination(scene) for scene in scenes), *(f"{shape}|{colour}" for colour, shape in named)]
    )


def ends(seed: int, count: int) -> list[Scene]:
    """The first and the last scenes of a training's data."""
    first, last = (training_pairs(seed, start, SOME).scenes for start in (0, count - SOME))
    return first + last


TRAINING_DATA: dict[str, Callable[[], list[Scene]]] = {
    "tokenizers": lambda: ends(Recipe.seed, TOKENIZER_CAPTIONS),
    "student": lambda: ends(Recipe.seed, Recipe.steps * Recipe.batch_size),
    "autoencoder": lambda: ends(VaeRecipe.seed, VaeRecipe.steps * VaeRecipe.batch_size),
    "teacher": lambda: ends(TeacherRecipe.seed, TeacherRecipe.pool_size),
    "distillation": lambda: DemoPairs(max(TAGS.pairs, EXACT.pairs)).scenes,
}


@pytest.mark.parametrize("data", TRAINING_DATA)
def test_no_combination_that_is_measured_is_trained_on(data: str) -> None:
    scenes = TRAINING_DATA[data]()
    assert {combination_split(scene) for scene in scenes} == {Split.TRAIN}
    trained = {combination(scene) for scene in scenes}
    assert len(trained) > 1000
    assert not trained & held_out_combinations()


def test_measured_combinations_go_by_the_names_that_scenes_have() -> None:
    drawn = pairs(Split.HELD_OUT, 9, 0, 100).scenes
    singles = {combination(scene) for scene in drawn if len(scene.things) == 1}
    assert singles
    assert singles <= held_out_combinations()
    assert len([name for name in held_out_combinations() if "+" in name]) > 500


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Split]:
    """The part of every scene that is drawn from now on."""
    parts: list[Split] = []

    def watched(split: Split, rng: np.random.Generator) -> Scene:
        parts.append(split)
        return draw_scene_of(split, rng)

    monkeypatch.setattr(sds_clip.demo.sets, "draw_scene_of", watched)
    return parts


def test_training_the_student_draws_from_the_training_part_alone(tmp_path: Path, drawn: list[Split]) -> None:
    tokenizer = open_clip.get_tokenizer(f"local-dir:{STUDENT}")
    validation = load_validation(tokenizer, pair_count=128, items_per_kind=2)
    drawn.clear()
    train_student(Recipe(steps=2, batch_size=8, warmup_steps=1), tokenizer, validation, tmp_path)
    assert drawn == [Split.TRAIN] * 16


def test_training_the_teacher_draws_from_the_training_part_alone(
    tmp_path: Path, drawn: list[Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The U-Net is trained on the pool's latents, and draws no scenes itself."""
    monkeypatch.setattr(sds_clip.demo.train_vae, "SCALE_IMAGES", 8)
    lessons = ShapeLessons(TeacherRecipe.seed)
    vae = train_vae(VaeRecipe(steps=4, batch_size=8, warmup_steps=2), lessons, tmp_path)
    assert drawn == [Split.TRAIN] * (4 * 8 + 8)
    recipe = TeacherRecipe(pool_size=16)
    assert len(load_pool(recipe, vae, lessons, tmp_path).captions) == 16
    assert set(drawn) == {Split.TRAIN}


def test_three_trainings_draw_from_seeds_of_their_own() -> None:
    assert len({Recipe.seed, TeacherRecipe.seed, DISTILLATION_SEED}) == 3
    assert TeacherRecipe.seed == VaeRecipe.seed
    assert DemoPairs(20).scenes == training_pairs(DISTILLATION_SEED, 0, 20).scenes


def test_sample_is_the_pair_drawn_at_its_index() -> None:
    drawn, held = training_pairs(DISTILLATION_SEED, 0, 12), DemoPairs(12)
    assert len(held) == 12
    for index in (0, 11):
        sample = held.sample(index)
        assert (sample.captions, sample.negatives) == ((drawn.captions[index],), ((),))
        assert str(index) in sample.name
        assert held.image(index).mode == "RGB"
        assert (np.asarray(held.image(index)) == drawn.images[index]).all()


def test_content_hash_is_of_the_data_alone() -> None:
    assert DemoPairs(8).content_hash == DemoPairs(8).content_hash
    others = [DemoPairs(7), DemoPairs(8, seed=3), DemoPairs(8, split=Split.VALIDATION)]
    assert len({DemoPairs(8).content_hash, *(other.content_hash for other in others)}) == 4


def test_tags_are_words_and_their_candidates_hold_what_is_true_once() -> None:
    exact, tagged = DemoPairs(60), DemoPairs(60, captions="tags")
    places = set()
    for index, scene in enumerate(exact.scenes):
        sample = tagged.sample(index)
        (text,), (candidates,) = sample.captions, sample.negatives
        assert text.split(", ") == sorted(
            {word for thing in scene.things for word in (thing.colour, thing.shape)}
        )
        if scene.relation is None:
            assert candidates == ()
            continue
        different = two_different(scene)
        assert len(candidates) == len(set(candidates)) == (8 if different else 4)
        first, second = (f"{thing.colour} {thing.shape}" for thing in scene.things)
        true = [said for said in candidates if _says(said, first, second, scene.relation)]
        assert len(true) == 1
        places.add(candidates.index(true[0]))
    assert len(places) == 8  # the true one is anywhere


def _says(text: str, first: str, second: str, relation: Relation) -> bool:
    """Whether a caption says that the first is in the relation to the second, by the words of both directions."""
    words = {
        Relation.LEFT: ("left",),
        Relation.RIGHT: ("right",),
        Relation.ABOVE: ("above", "over", "higher", "atop"),
        Relation.BELOW: ("below", "under", "lower", "beneath"),
    }
    if first not in text or second not in text:
        return False
    after = any(text.endswith(end) for end in ("it", "its left", "its right"))
    named_first = text.index(first) < text.index(second)
    said = next(each for each, of in words.items() if any(word in text.split() for word in of))
    return (said if named_first != after else said.reverse) is relation


@pytest.mark.usefixtures("fresh_captions")
def test_proposed_captions_have_the_right_words_and_not_only_the_right_binding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The list has the captions that the words of a few scenes make, among others."""
    exact, tagged = DemoPairs(24), DemoPairs(24, captions="tags")
    candidates = [text for index in range(24) for text in tagged.sample(index).negatives[0]]
    others = training_pairs(DISTILLATION_SEED, 24, 400).captions
    monkeypatch.setattr("sds_clip.demo.training_set.training_captions", lambda: [*candidates, *others])
    proposed = DemoPairs(24, captions="proposed")
    for index, scene in enumerate(exact.scenes):
        sample = proposed.sample(index)
        said = [*sample.captions, *sample.negatives[0]]
        assert len(set(said)) == PROPOSED
        words = {word for thing in scene.things for word in (thing.colour, thing.shape)}
        if len(scene.things) == 2:
            assert sum(words <= set(text.split()) for text in said) >= 3


def test_the_world_s_training_captions_are_of_training_combinations_alone() -> None:
    said = list(training_captions())
    assert len(set(said)) == len(said)
    singles = [text for text in said if len(text.split()) == 3]
    assert 140 <= len(singles) <= 160  # 80 % of 192
    assert 0.78 < (len(said) - len(singles)) / (192 * 191 / 2 * 4) < 0.82


def test_of_the_world_s_training_captions_one_is_true_of_each_training_scene() -> None:
    said = set(training_captions())
    for scene in DemoPairs(200).scenes:
        true = true_captions(scene)
        assert len(true & said) == 1
        if scene.relation is not None:
            assert true.isdisjoint(true_captions(replace(scene, relation=scene.relation.reverse)))
            assert true == true_captions(
                replace(scene, things=scene.things[::-1], relation=scene.relation.reverse)
            )
