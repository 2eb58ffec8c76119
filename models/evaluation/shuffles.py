"""The four ways in which ARO's order sets put a caption's words in a wrong order (arXiv 2210.01936, section 2.2).

The authors' code finds nouns and adjectives with spaCy's tagger. Here they are what `models.data.phrases` finds by
function words: the last word of a run of content words is its noun, those before it are its adjectives. Words are
counted without punctuation, which stays where it is. A shuffle that gives the caption back is drawn again, which
the authors' code does not do; where no other order exists, there is none.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence

import numpy as np

from models.data.phrases import Words, phrases_and_verbs

MAX_WORDS = 30
"""As many words of a caption as the authors keep."""

Order = list[int]
"""A permutation: which word comes to stand at each place."""

Draw = tuple[list[list[list[int]]], Callable[[np.random.Generator], Order]]
"""Groups of units that change places among themselves, a unit being words that stay together; and one draw."""

_REMOVED = re.compile(r"([.!\"()*#:;~])")
_UINT64 = 2**64 - 1
_ATTEMPTS = 200


def cleaned(caption: str) -> str:
    """The caption as the authors' code prepares it: lower case, some punctuation dropped, at most MAX_WORDS words."""
    return " ".join(_REMOVED.sub(" ", caption.lower()).split()[:MAX_WORDS])


def shuffled_captions(caption: str, *, seed: int, place: int) -> tuple[str, ...]:
    """Up to four wrong orders of a cleaned caption, one a kind; a pure function of the arguments.

    `place` is the caption's number in its set, so that equal captions are shuffled differently.
    """
    text = Words.of(caption)
    units = (_nouns_and_adjectives, _all_but_those, _within_trigrams, _trigrams)
    found = []
    for kind, unit in enumerate(units):
        entropy = [seed & _UINT64, place, kind, zlib.crc32(caption.encode())]
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))
        words = _differently(text, unit(text), rng)
        if words is not None:
            found.append(_joined(text, words))
    return tuple(found)


def _differently(text: Words, draw: Draw, rng: np.random.Generator) -> list[str] | None:
    groups, order_of = draw
    if not any(len({tuple(text.words[place] for place in unit) for unit in group}) > 1 for group in groups):
        return None
    for _ in range(_ATTEMPTS):
        words = [text.words[place] for place in order_of(rng)]
        if words != list(text.words):
            return words
    return None  # as for `a a a a`, whose trigrams differ and make one text in any order


def _nouns_and_adjectives(text: Words) -> Draw:
    nouns, adjectives = _tagged(text)
    return _exchange(len(text.words), [nouns, adjectives])


def _all_but_those(text: Words) -> Draw:
    nouns, adjectives = _tagged(text)
    rest = sorted(set(range(len(text.words))) - {*nouns, *adjectives})
    return _exchange(len(text.words), [rest])


def _within_trigrams(text: Words) -> Draw:
    return _exchange(len(text.words), _cut(len(text.words)))


def _trigrams(text: Words) -> Draw:
    units = _cut(len(text.words))

    def order(rng: np.random.Generator) -> Order:
        return [place for unit in rng.permutation(len(units)) for place in units[unit]]

    return [units], order


def _exchange(length: int, groups: Sequence[list[int]]) -> Draw:
    """Words that change places with others of their group."""

    def order(rng: np.random.Generator) -> Order:
        places = list(range(length))
        for group in groups:
            for place, drawn in zip(group, rng.permutation(len(group)), strict=True):
                places[place] = group[drawn]
        return places

    return [[[place] for place in group] for group in groups], order


def _cut(length: int) -> list[list[int]]:
    return [list(range(start, min(start + 3, length))) for start in range(0, length, 3)]


def _tagged(text: Words) -> tuple[list[int], list[int]]:
    phrases, _ = phrases_and_verbs(text)
    nouns = [phrase.stop - 1 for phrase in phrases]
    return nouns, [place for phrase in phrases for place in range(phrase.start, phrase.stop - 1)]


def _joined(text: Words, words: list[str]) -> str:
    return text.gaps[0] + "".join(word + gap for word, gap in zip(words, text.gaps[1:], strict=True))
