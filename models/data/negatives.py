"""Hard negative captions for training: the caption's own words, swapped so that the meaning changes."""

import zlib
from collections.abc import Iterable, Iterator
from itertools import combinations, zip_longest

import numpy as np

from sds_clip.models.data.phrases import REFERENCES, SYMMETRIC, Span, Words, phrases_and_verbs

_UINT64 = 2**64 - 1

Swap = tuple[tuple[int, int], tuple[int, int]]
"""Two ranges of words to exchange, the earlier one first."""


def swap_negatives(caption: str, count: int, *, seed: int, index: int) -> tuple[str, ...]:
    """Return up to `count` captions with two parts swapped, a pure function of the arguments.

    For `a red circle left of a blue square`, swaps exchange attributes (`a blue circle left of a red
    square`), nouns (`a red square left of a blue circle`), whole phrases (`a blue square left of a red
    circle`) and, if there are two, verbs. Swaps that keep the meaning, such as swaps around `and`, are not made.
    Kinds take turns, so that a few negatives cover many kinds. A caption of one phrase has none: fewer than
    `count`, or none, may be returned.
    """
    text = Words.of(caption)
    phrases, verbs = phrases_and_verbs(text)
    kinds = [
        _attributes(text, phrases),
        _nouns(text, phrases),
        _wholes(text, phrases),
        _verbs(text, verbs),
    ]
    draw = np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed & _UINT64, index, zlib.crc32(caption.encode())]))
    )
    shuffled = [[swaps[place] for place in draw.permutation(len(swaps))] for swaps in map(list, kinds)]
    turns = [shuffled[place] for place in draw.permutation(len(shuffled))]
    found: dict[str, str] = {}
    for swap in (swap for turn in zip_longest(*turns) for swap in turn if swap is not None):
        if len(found) == count:
            break
        negative = _swapped(text, swap)
        if negative.lower() != caption.lower():
            found.setdefault(negative.lower(), negative)
    return tuple(found.values())


def _attributes(text: Words, phrases: list[Span]) -> Iterator[Swap]:
    """Swap words at the same distance from the ends of two phrases, which swaps colour with colour."""
    for one, other in combinations(phrases, 2):
        for distance in range(2, min(one.stop - one.start, other.stop - other.start) + 1):
            first, second = one.stop - distance, other.stop - distance
            if _tells_apart(text, phrases, one, other, first, second):
                yield (first, first + 1), (second, second + 1)


def _nouns(text: Words, phrases: list[Span]) -> Iterator[Swap]:
    """Swap the last words of two phrases, if both are singular or both plural.

    Phrases of one word each are left to `_wholes`.
    """
    for one, other in combinations(phrases, 2):
        first, second = one.stop - 1, other.stop - 1
        bare = one.stop - one.start == 1 and other.stop - other.start == 1
        alike = _is_plural(text.lower(first)) == _is_plural(text.lower(second))
        if alike and not bare and _tells_apart(text, phrases, one, other, first, second):
            yield (first, first + 1), (second, second + 1)


def _wholes(text: Words, phrases: list[Span]) -> Iterator[Swap]:
    for one, other in combinations(phrases, 2):
        same = _lower(text, range(one.start, one.stop)) == _lower(text, range(other.start, other.stop))
        if not same and not _is_symmetric(text, phrases, one, other):
            yield (one.determined, one.stop), (other.determined, other.stop)


def _verbs(text: Words, verbs: list[int]) -> Iterator[Swap]:
    """Swap two verbs of the same form, judged by their endings."""
    for one, other in combinations(verbs, 2):
        if text.lower(one)[-2:] == text.lower(other)[-2:] and text.lower(one) != text.lower(other):
            yield (one, one + 1), (other, other + 1)


def _tells_apart(text: Words, phrases: list[Span], one: Span, other: Span, first: int, second: int) -> bool:
    """Return whether the meaning changes when a word of one phrase and a word of the other are swapped."""
    if text.lower(first) == text.lower(second):
        return False
    rest = [place for place in range(one.start, one.stop) if place != first]
    other_rest = [place for place in range(other.start, other.stop) if place != second]
    # In `a red circle and a red square`, swapping the nouns would only exchange the phrases.
    same_rest = _lower(text, rest) == _lower(text, other_rest)
    return not (same_rest and _is_symmetric(text, phrases, one, other))


def _is_symmetric(text: Words, phrases: list[Span], one: Span, other: Span) -> bool:
    """Return whether what joins two phrases is symmetric, and nothing later refers back to either."""
    inside = {place for phrase in phrases for place in range(phrase.determined, phrase.stop)}
    joining = set(_lower(text, (place for place in range(one.stop, other.determined) if place not in inside)))
    after = set(_lower(text, range(other.stop, len(text.words))))
    return joining <= SYMMETRIC | {"is", "are"} and not after & REFERENCES


def _lower(text: Words, places: Iterable[int]) -> list[str]:
    return [text.lower(place) for place in places]


def _is_plural(word: str) -> bool:
    return word.endswith("s") and not word.endswith(("ss", "us"))


def _swapped(text: Words, swap: Swap) -> str:
    """Return the caption after a swap, with `a` or `an` corrected and the first letter's case kept."""
    (start, stop), (other_start, other_stop) = swap
    places = [
        *range(start),
        *range(other_start, other_stop),
        *range(stop, other_start),
        *range(start, stop),
        *range(other_stop, len(text.words)),
    ]
    # Gaps inside a range move with it; those around it stay.
    inner = [text.gaps[place] for place in range(other_start + 1, other_stop)]
    outer = [text.gaps[place] for place in range(start + 1, stop)]
    gaps = [
        *text.gaps[: start + 1],
        *inner,
        *text.gaps[stop : other_start + 1],
        *outer,
        *text.gaps[other_stop:],
    ]
    words = [text.words[place] for place in places]
    # The word that moved to the front takes over the capital letter.
    if text.words[0].istitle() and places[0] != 0:
        moved = places.index(0)
        words[moved] = words[moved].lower()
        words[0] = words[0][:1].upper() + words[0][1:]
    _correct_articles(text, words)
    return gaps[0] + "".join(word + gap for word, gap in zip(words, gaps[1:], strict=True))


def _correct_articles(text: Words, words: list[str]) -> None:
    """Correct `a` and `an` in place.

    A word that follows `a` or `an` in the caption keeps that article (an hourglass). Others go by their first
    letter.
    """
    said = {
        text.lower(place + 1): word.lower()
        for place, word in enumerate(text.words)
        if word.lower() in ("a", "an") and text.joined(place + 1)
    }
    for place, word in enumerate(words[:-1]):
        if word.lower() in ("a", "an"):
            following = words[place + 1].lower()
            article = said.get(following, "an" if following[0] in "aeiou" else "a")
            words[place] = article.capitalize() if word[0].isupper() else article
