"""Negatives that the language of the captions does not tell."""

import random
from collections import Counter

import pytest

from sds_clip.models.data.language import Language

TEXTS = ["a red cup", "a blue cup", "a green cup"]


def kept(language: Language, caption: str, negative: str, tries: int = 4000) -> float:
    draw, keeps = random.Random(0), language.judge(caption)
    return sum(keeps(negative, draw.random()) for _ in range(tries)) / tries


def test_each_of_two_texts_is_as_often_the_caption_as_the_negative() -> None:
    """Metropolis: of a world with three times as many red cups as blue ones, both directions keep equally many."""
    captions = ["a red cup"] * 300 + ["a blue cup"] * 100
    language = Language(captions)

    flow = Counter[tuple[str, str]]()
    for caption in ("a red cup", "a blue cup"):
        other = "a blue cup" if "red" in caption else "a red cup"
        flow[caption, other] = round(captions.count(caption) * kept(language, caption, other))

    red, blue = flow["a red cup", "a blue cup"], flow["a blue cup", "a red cup"]
    assert blue == 100
    assert red == pytest.approx(blue, rel=0.1)


def test_words_that_follow_each_other_nowhere_are_hardly_kept() -> None:
    language = Language([f"two dogs are playing in the snow {n}" for n in range(50)])

    assert kept(language, "two dogs are playing in the snow 7", "the snow are playing in two dogs 7") < 0.01


def test_caption_that_is_the_only_one_of_its_words_tells_nothing_by_itself() -> None:
    """Its own n-grams are left out; otherwise every caption would be more probable than its negative."""
    language = Language([f"{one} near {other}" for one, other in zip("abcdef", "uvwxyz", strict=True)])

    assert kept(language, "a near u", "u near a") > 0.9


def test_the_same_draw_gives_the_same_answer() -> None:
    first, second = Language(TEXTS), Language(TEXTS)

    for draw in (0.0, 0.3, 0.999):
        answers = {each.judge(TEXTS[0])(TEXTS[1], draw) for each in (first, second)}
        assert len(answers) == 1
