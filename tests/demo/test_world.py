from collections import Counter
from itertools import product

import numpy as np
import pytest

from sds_clip.demo.render import coverage
from sds_clip.demo.sets import classification_set, pairs, retrieval_set, training_pairs
from sds_clip.demo.winoground_sets import winoground_items
from sds_clip.demo.world import (
    COLOURS,
    SHAPES,
    Relation,
    Scene,
    Split,
    Thing,
    combination,
    combination_split,
    draw_scene,
    with_colours_exchanged,
    with_places_exchanged,
)


def thing(shape: str = "circle", colour: str = "red", x_px: int = 16, y_px: int = 32) -> Thing:
    return Thing(shape, colour, "small", 7, COLOURS[colour], x_px, y_px)


def scenes(count: int, seed: int = 7) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [draw_scene(rng) for _ in range(count)]


@pytest.fixture(scope="module")
def many_scenes() -> list[Scene]:
    return scenes(4000)


def test_no_combination_is_in_two_parts() -> None:
    seen = {
        Split.TRAIN: training_pairs(0, 0, 12_000).scenes + pairs(Split.TRAIN, 9, 0, 2000).scenes,
        Split.VALIDATION: retrieval_set(Split.VALIDATION).scenes + pairs(Split.VALIDATION, 9, 0, 2000).scenes,
        Split.HELD_OUT: retrieval_set(Split.HELD_OUT).scenes + pairs(Split.HELD_OUT, 9, 0, 2000).scenes,
    }
    for split in (Split.VALIDATION, Split.HELD_OUT):
        seen[split] += [scene for item in winoground_items(split) for scene in item.scenes]
    # Named here by sets of objects, not by `combination`, which decides the parts.
    named = {
        split: {
            (
                tuple(sorted(thing.shape for thing in scene.things)),
                tuple(sorted(thing.colour for thing in scene.things)),
            )
            for scene in part
        }
        for split, part in seen.items()
    }
    assert all(len(part) > 500 for part in named.values())
    assert named[Split.TRAIN].isdisjoint(named[Split.VALIDATION])
    assert named[Split.TRAIN].isdisjoint(named[Split.HELD_OUT])
    assert named[Split.VALIDATION].isdisjoint(named[Split.HELD_OUT])


def test_single_objects_to_classify_are_new_combinations() -> None:
    labels = classification_set(Split.HELD_OUT).labels
    held_out = {labels[target] for target in classification_set(Split.HELD_OUT).targets}
    trained = {
        f"{scene.things[0].colour} {scene.things[0].shape}"
        for scene in training_pairs(0, 0, 5000).scenes
        if len(scene.things) == 1
    }
    assert len(labels) == 192
    assert held_out.isdisjoint(trained)


def test_every_part_shows_every_single_shape_and_colour() -> None:
    singles: dict[Split, list[tuple[str, str]]] = {split: [] for split in Split}
    for shape, colour in product(SHAPES, COLOURS):
        scene = Scene((thing(shape, colour),), None, (238, 238, 238))
        singles[combination_split(scene)].append((shape, colour))
    for names in singles.values():
        assert {shape for shape, _ in names} == set(SHAPES)
        assert {colour for _, colour in names} == set(COLOURS)
    assert len(singles[Split.TRAIN]) > 0.75 * 192


def test_parts_have_about_eighty_ten_and_ten_percent(many_scenes: list[Scene]) -> None:
    share = Counter(combination_split(scene) for scene in many_scenes)
    assert share[Split.TRAIN] / 4000 == pytest.approx(0.8, abs=0.03)
    assert share[Split.VALIDATION] / 4000 == pytest.approx(0.1, abs=0.02)
    assert share[Split.HELD_OUT] / 4000 == pytest.approx(0.1, abs=0.02)


def test_split_of_a_combination_never_moves() -> None:
    # A part that moved would put training pictures into sets that are already published.
    scene = Scene((thing("circle", "red"), thing("star", "blue", 48)), Relation.LEFT, (238, 238, 238))
    assert combination(scene) == "circle+star|blue+red"
    assert combination_split(scene) is Split.TRAIN
    validation = Scene((thing("circle", "red"),), None, (238, 238, 238))
    assert combination_split(validation) is Split.VALIDATION


def test_exchanges_stay_in_their_part(many_scenes: list[Scene]) -> None:
    for scene in many_scenes:
        if len(scene.things) == 2:
            assert combination_split(with_colours_exchanged(scene)) is combination_split(scene)
            assert combination_split(with_places_exchanged(scene)) is combination_split(scene)


def test_exchanged_colours_change_nothing_else() -> None:
    scene = Scene((thing("circle", "red"), thing("star", "blue", 48)), Relation.LEFT, (238, 238, 238))
    expected = (thing("circle", "blue"), thing("star", "red", 48))
    assert with_colours_exchanged(scene) == Scene(expected, Relation.LEFT, (238, 238, 238))


def test_exchanged_places_reverse_the_relation() -> None:
    scene = Scene((thing("circle", "red"), thing("star", "blue", 48)), Relation.LEFT, (238, 238, 238))
    expected = (thing("circle", "red", 48), thing("star", "blue", 16))
    assert with_places_exchanged(scene) == Scene(expected, Relation.RIGHT, (238, 238, 238))


def test_relation_is_where_the_first_object_stands(many_scenes: list[Scene]) -> None:
    for scene in many_scenes:
        if len(scene.things) == 2:
            first, second = scene.things
            dx, dy = second.x_px - first.x_px, second.y_px - first.y_px
            clear = {Relation.LEFT: dx, Relation.RIGHT: -dx, Relation.ABOVE: dy, Relation.BELOW: -dy}
            assert scene.relation is not None
            assert clear[scene.relation] >= 29


def test_objects_never_touch_or_leave_the_picture(many_scenes: list[Scene]) -> None:
    for scene in many_scenes:
        covered = np.zeros((96, 96))
        for item in scene.things:
            alpha = coverage(item.shape, item.radius_px) > 0
            reach = alpha.shape[0] // 2
            top, left = item.y_px + 16 - reach, item.x_px + 16 - reach
            covered[top : top + alpha.shape[0], left : left + alpha.shape[1]] += alpha
        assert covered.max() == 1
        assert covered.sum() == covered[16:80, 16:80].sum()


def test_about_a_fifth_of_the_scenes_hold_one_object(many_scenes: list[Scene]) -> None:
    assert np.mean([len(scene.things) == 1 for scene in many_scenes]) == pytest.approx(0.2, abs=0.02)


def test_two_objects_always_differ(many_scenes: list[Scene]) -> None:
    names = [{(item.shape, item.colour) for item in scene.things} for scene in many_scenes]
    assert all(len(name) == len(scene.things) for name, scene in zip(names, many_scenes, strict=True))


def test_same_seed_draws_the_same_scenes() -> None:
    assert scenes(50, seed=3) == scenes(50, seed=3)
    assert scenes(50, seed=3) != scenes(50, seed=4)
