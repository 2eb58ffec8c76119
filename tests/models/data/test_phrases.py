"""Phrases and verbs of a caption, told by its function words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sds_clip.models.data.phrases import Words, phrases_and_verbs


@pytest.mark.parametrize(
    ("caption", "phrases", "verbs"),
    [
        ("a small red ball left of the blue box", ["a small red ball", "the blue box"], []),
        ("a man riding a horse", ["a man", "a horse"], ["riding"]),
        ("the boy threw two balls", ["the boy", "two balls"], ["threw"]),
        ("A red bus is parked on the street", ["A red bus", "the street"], ["parked"]),
        ("a smiling man in a parked car", ["a smiling man", "a parked car"], []),
        ("a brick building by a king", ["a brick building", "a king"], []),
        ("a red circle sits left of a blue star", ["a red circle", "a blue star"], ["sits"]),
        ("A man sits on a wooden bench", ["A man", "a wooden bench"], ["sits"]),
        ("every dog barks", ["every dog"], ["barks"]),
        ("a man eats apples", ["a man", "apples"], ["eats"]),
        ("a man riding horses", ["a man", "horses"], ["riding"]),
        ("the red circles over one small bus", ["the red circles", "one small bus"], []),
        ("a man's hands and a dozen eggs", ["a man's hands", "a dozen eggs"], []),
        ("a camera lens in a tennis series", ["a camera lens", "a tennis series"], []),
        ("a city lights are on", ["a city lights"], []),
        ("red, blue", ["red", "blue"], []),
        ("there is a photo of it", [], []),
        ("a dog's t-shirt", ["a dog's t-shirt"], []),
        ("", [], []),
    ],
)
def test_caption_is_cut_into_phrases_and_verbs(caption: str, phrases: list[str], verbs: list[str]) -> None:
    text = Words.of(caption)
    found, places = phrases_and_verbs(text)
    assert [" ".join(text.words[span.determined : span.stop]) for span in found] == phrases
    assert [text.words[place] for place in places] == verbs


@given(st.text(max_size=40))
def test_words_and_gaps_give_the_caption_back(caption: str) -> None:
    text = Words.of(caption)
    assert len(text.gaps) == len(text.words) + 1
    assert (
        text.gaps[0] + "".join(word + gap for word, gap in zip(text.words, text.gaps[1:], strict=True))
        == caption
    )
