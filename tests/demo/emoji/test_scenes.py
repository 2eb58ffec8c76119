from collections import Counter

import numpy as np

from sds_clip.demo.emoji.packages import Concept
from sds_clip.demo.emoji.pictures import SIDE_PX
from sds_clip.demo.emoji.scenes import (
    NUMBERS,
    THINGS,
    Layer,
    Scene,
    a,
    concept_split,
    draw_composition,
    pair,
    pair_split,
    several,
    single,
    sized_pair,
)
from sds_clip.demo.world import Relation, Split

REVERSED_WORDS = {
    "left": "right",
    "right": "left",
    "above": "below",
    "over": "under",
    "below": "above",
    "under": "over",
}


def is_where_it_says(scene: Scene, words: str) -> bool:
    """Whether the first named thing is in this relation to the other."""
    named = sorted(scene.layers, key=lambda layer: scene.caption.index(layer.concept))
    x, y = named[0].x - named[1].x, named[0].y - named[1].y
    return {"left": x < 0, "right": x > 0, "above": y < 0, "over": y < 0, "below": y > 0, "under": y > 0}[
        words
    ]


def test_captions_say_where_the_pictures_are() -> None:
    rng = np.random.default_rng(0)
    said = Counter[str]()
    for number in range(400):
        scene = pair("key", "drum", tuple(Relation)[number % 4], rng, rng)
        (word,) = (word for word in REVERSED_WORDS if f" {word} " in scene.caption)
        assert is_where_it_says(scene, word)
        assert not is_where_it_says(scene, REVERSED_WORDS[word])
        said[word] += 1
    assert set(said) == set(REVERSED_WORDS)


def test_captions_say_which_is_big() -> None:
    rng = np.random.default_rng(0)
    for number in range(200):
        scene = sized_pair("key", "drum", tuple(Relation)[number % 4], rng, rng)
        big, small = scene.layers
        assert (big.concept, small.concept) == ("key", "drum")
        assert big.side > 1.6 * small.side
        assert "a big key" in scene.caption
        assert "a small drum" in scene.caption
        placed = [word for word in REVERSED_WORDS if f" {word} " in scene.caption]
        assert all(is_where_it_says(scene, word) for word in placed)


def test_captions_say_how_many() -> None:
    scene = several("mouse", 3, np.random.default_rng(0))
    assert scene.caption == "three mice"
    assert len(scene.layers) == 3
    assert {scene.layers[0].concept} == {"mouse"}


def test_pictures_of_a_scene_do_not_overlap_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    for scene in (draw_composition(Split.TRAIN, rng) for _ in range(500)):
        for place, one in enumerate(scene.layers):
            assert all(
                at - one.side / 2 + 3 >= 0 and at + one.side / 2 <= SIDE_PX + 3 for at in (one.x, one.y)
            )
            for other in scene.layers[:place]:
                apart = max(abs(one.x - other.x), abs(one.y - other.y))
                assert apart > (one.side + other.side) / 2 - 4


def test_no_pair_of_things_is_in_two_parts_and_things_are_no_held_out_concepts() -> None:
    names = list(THINGS)
    parts = Counter(pair_split(one, other) for one in names for other in names if one < other)
    assert parts[Split.TRAIN] / parts.total() > 0.75
    assert min(parts[Split.VALIDATION], parts[Split.HELD_OUT]) / parts.total() > 0.07
    assert pair_split("cat", "dog") is pair_split("dog", "cat")
    rng = np.random.default_rng(0)
    for split in Split:
        for scene in (draw_composition(split, rng) for _ in range(50)):
            named = {layer.concept for layer in scene.layers}
            assert len(named) == 1 or pair_split(*named) is split
    assert all(concept_split(Concept("", name, ())) is Split.TRAIN for name in THINGS)
    assert concept_split(Concept("", "word3", ())) is concept_split(Concept("other", "word3", ("more",)))


def test_a_single_picture_is_named_or_described_by_its_keywords() -> None:
    concept, rng = Concept("1", "snail", ("slow", "garden")), np.random.default_rng(0)
    captions = [single(concept, rng).caption for _ in range(300)]
    assert all(any(word in caption for word in ("snail", "slow", "garden")) for caption in captions)
    assert sum("snail" in caption for caption in captions) > 200
    assert single(concept, rng, turned=False).layers == (Layer("snail", 32, 32, SIDE_PX),)


def test_words() -> None:
    assert (a("owl"), a("cat")) == ("an owl", "a cat")
    assert len(THINGS) == 64
    assert (THINGS["cat"], THINGS["mouse"], THINGS["butterfly"]) == ("cats", "mice", "butterflies")
    assert NUMBERS == ("two", "three", "four")
