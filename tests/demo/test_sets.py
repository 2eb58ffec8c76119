import hashlib

import numpy as np

from sds_clip.demo.sets import RETRIEVAL_BATCH, classification_set, pairs, retrieval_set, training_pairs
from sds_clip.demo.world import COLOURS, SHAPES, Scene, Split, combination, combination_split


def test_pair_depends_on_its_index_alone() -> None:
    whole = training_pairs(0, 0, 40)
    part = training_pairs(0, 25, 5)
    assert part.captions == whole.captions[25:30]
    assert part.scenes == whole.scenes[25:30]
    assert (part.images == whole.images[25:30]).all()


def test_training_pairs_are_the_ones_that_the_student_saw() -> None:
    # A change of the world that moves these makes the stored weights impossible to rebuild.
    captions = "\n".join(training_pairs(0, 0, 200).captions)
    assert hashlib.sha256(captions.encode()).hexdigest()[:16] == "1125dcb53cd04a02"


def test_seeds_and_parts_draw_other_pairs() -> None:
    assert training_pairs(0, 0, 20).captions != training_pairs(1, 0, 20).captions
    assert pairs(Split.VALIDATION, 0, 0, 20).captions != training_pairs(0, 0, 20).captions


def test_every_pair_belongs_to_its_part() -> None:
    for split in Split:
        assert {combination_split(scene) for scene in pairs(split, 5, 0, 200).scenes} == {split}


def test_retrieval_batch_repeats_no_combination() -> None:
    drawn = retrieval_set(Split.HELD_OUT, 256)
    assert len(drawn.captions) == len(drawn.images) == 256
    for start in (0, RETRIEVAL_BATCH):
        batch = drawn.scenes[start : start + RETRIEVAL_BATCH]
        assert len({combination(scene) for scene in batch}) == RETRIEVAL_BATCH


def test_random_batch_hardly_ever_needs_word_order() -> None:
    # A reader who forgets which colour belongs to which shape, and where it stands, still finds the picture.
    drawn = pairs(Split.TRAIN, 6, 0, 1024)
    sure = [
        sum(says_nothing_false(text, other) for other in batch_of(drawn.scenes, index)) == 1
        for index, text in enumerate(drawn.captions)
    ]
    named_in_full = [
        sum(word in COLOURS for word in text.split()) == len(scene.things) and len(scene.things) == 2
        for text, scene in zip(drawn.captions, drawn.scenes, strict=True)
    ]
    assert np.mean(sure) > 0.85
    assert np.mean([found for found, full in zip(sure, named_in_full, strict=True) if full]) > 0.97


def batch_of(scenes: list[Scene], index: int) -> list[Scene]:
    start = index - index % RETRIEVAL_BATCH
    return scenes[start : start + RETRIEVAL_BATCH]


def says_nothing_false(text: str, scene: Scene) -> bool:
    """Do the caption's shapes and colours, as a bag of words, fit the scene?"""
    words = text.split()
    shapes = sorted(word for word in words if word in SHAPES)
    colours = [word for word in words if word in COLOURS]
    present = [thing.colour for thing in scene.things]
    return shapes == sorted(thing.shape for thing in scene.things) and all(
        colours.count(colour) <= present.count(colour) for colour in colours
    )


def test_single_objects_are_labelled_with_their_own_name() -> None:
    drawn = classification_set(Split.HELD_OUT, 60)
    assert len(drawn.images) == len(drawn.targets) == 60
    assert len(drawn.labels) == len(set(drawn.labels)) == len(COLOURS) * len(SHAPES)
    for pixels, target in zip(drawn.images, drawn.targets, strict=True):
        colour = drawn.labels[target].split()[0]
        nearest = np.abs(pixels.astype(int) - COLOURS[colour]).sum(axis=2).min()
        assert nearest <= 30  # three channels, each jittered by at most ten
