import re
from collections import Counter

import numpy as np
import pytest

from sds_clip.demo.captions import PLAIN_FRAMES, Wording, caption, draw_wording
from sds_clip.demo.sets import Pairs, training_pairs
from sds_clip.demo.world import COLOURS, SHAPES, Relation, Scene, Thing

WHERE = {
    "left": (-1, 0), "right": (1, 0), "above": (0, -1), "over": (0, -1), "higher": (0, -1), "atop": (0, -1),
    "below": (0, 1), "under": (0, 1), "lower": (0, 1), "beneath": (0, 1),
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return training_pairs(11, 0, 3000)


def direction(text: str) -> tuple[str, str, tuple[int, int]] | None:
    """Read a caption as a person would: which shape stands where, seen from which other shape."""
    relation = next((WHERE[word] for word in text.split() if word in WHERE), None)
    nouns = re.findall(rf"\b({'|'.join(SHAPES)})\b", text)
    if relation is None or len(nouns) != 2:
        return None
    stands_last = " its " in text or text.endswith(" it")
    subject, other = (nouns[1], nouns[0]) if stands_last else (nouns[0], nouns[1])
    return subject, other, relation


def test_relation_in_a_caption_is_true_of_its_scene(pairs: Pairs) -> None:
    checked = 0
    for text, scene in zip(pairs.captions, pairs.scenes, strict=True):
        read = direction(text)
        if read is None or len({thing.shape for thing in scene.things}) < 2:
            continue
        at = {thing.shape: np.array([thing.x_px, thing.y_px]) for thing in scene.things}
        assert np.dot(at[read[0]] - at[read[1]], read[2]) >= 29, text
        checked += 1
    assert checked > 1500


def test_colours_and_sizes_in_a_caption_belong_to_their_shapes(pairs: Pairs) -> None:
    for text, scene in zip(pairs.captions, pairs.scenes, strict=True):
        for phrase in re.findall(rf"an? (?:\w+ ){{0,2}}(?:{'|'.join(SHAPES)})\b", text):
            words = phrase.split()[1:]
            matching = [
                thing for thing in scene.things
                if words[-1] == thing.shape
                and set(words[:-1]) & set(COLOURS) <= {thing.colour}
                and (thing.size == "small" or not set(words) & {"small", "little", "tiny"})
                and (thing.size == "large" or not set(words) & {"large", "big", "huge"})
            ]  # fmt: skip
            assert matching, (phrase, text)


def test_articles_fit_the_word_after_them(pairs: Pairs) -> None:
    for text in pairs.captions:
        for article, word in re.findall(r"\b(an?) (\w+)", text):
            assert (article == "an") == (word[0] in "aeiou" or word == "hourglass"), text


def test_direction_words_are_as_often_about_either_object(pairs: Pairs) -> None:
    # Else "left" alone would tell where the first-named object stands.
    found: Counter[bool] = Counter()
    for text, scene in zip(pairs.captions, pairs.scenes, strict=True):
        read = direction(text)
        if read is not None:
            named_first = re.findall(rf"\b({'|'.join(SHAPES)})\b", text)[0]
            found[scene.things[0].shape == named_first] += 1
    assert found[True] / found.total() == pytest.approx(0.5, abs=0.06)


def test_captions_are_varied_and_lower_case(pairs: Pairs) -> None:
    assert len(set(pairs.captions)) > 0.93 * len(pairs.captions)
    assert all(text == text.lower() and text == " ".join(text.split()) for text in pairs.captions)


def test_complete_wording_names_both_colours_and_the_relation() -> None:
    rng = np.random.default_rng(0)
    wordings = [draw_wording(2, rng, complete=True) for _ in range(300)]
    assert all(all(wording.colours) and wording.frame not in PLAIN_FRAMES for wording in wordings)


@pytest.mark.parametrize(
    ("relation", "flipped", "frame", "expected"),
    [
        (Relation.LEFT, False, "{a} {relation} {b}", "a red circle to the left of a tiny star"),
        (Relation.LEFT, True, "{a} {relation} {b}", "a tiny star to the right of a red circle"),
        (Relation.ABOVE, False, "{b} with {a} {relation}", "a tiny star with a red circle above it"),
        (Relation.ABOVE, True, "{b} with {a} {relation}", "a red circle with a tiny star below it"),
    ],
)
def test_one_scene_is_told_from_either_object(
    relation: Relation, flipped: bool, frame: str, expected: str
) -> None:
    circle = Thing("circle", "red", "large", 12, (214, 34, 40), 16, 32)
    star = Thing("star", "blue", "small", 7, (34, 74, 212), 48, 32)
    wording = Wording(frame, phrase=0, flipped=flipped, colours=(True, False), sizes=(None, 2))
    assert caption(Scene((circle, star), relation, (238, 238, 238)), wording) == expected
