"""Hard negative captions for training, made of the caption's own words and of word lists (words.json)."""

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, zip_longest
from pathlib import Path

import numpy as np

from sds_clip.models.choices import NegativeKind
from sds_clip.models.data.language import Language
from sds_clip.models.data.pairs import Negative
from sds_clip.models.data.phrases import POSTURES, REFERENCES, SYMMETRIC, Span, Words, phrases_and_verbs

_UINT64 = 2**64 - 1
_LISTS = json.loads(Path(__file__).with_name("words.json").read_text(encoding="utf-8"))
_PLURALS = frozenset(_LISTS["plurals"].split())
_GROUPS = {kind: [group.split() for group in groups] for kind, groups in _LISTS["replace"].items()}
"""By kind, groups of words of which only one can be true of the same thing."""
_SINGULAR = frozenset(["a", "an", "this", "that", "each", "every", "another", "one"])

Swap = tuple[tuple[int, int], tuple[int, int]]
"""Two ranges of words to exchange, the earlier one first."""


def hard_negatives(
    caption: str,
    count: int,
    *,
    kinds: Sequence[NegativeKind] = ("swap",),
    language: Language | None = None,
    seed: int,
    index: int,
) -> tuple[Negative, ...]:
    """Return up to `count` captions that say something else, a pure function of the arguments.

    - `swap`: for `a red circle left of a blue square`, exchange attributes (`a blue circle left of a red square`),
      nouns (`a red square left of a blue circle`), whole phrases (`a blue square left of a red circle`) and, if there
      are two, verbs. Swaps that keep the meaning, such as swaps around `and`, and those of one thing for several are
      not made.
    - `move`: give a noun's attribute to a noun that has none (`a cat on a red mat`, `a red cat on a mat`).
    - `replace`: exchange a word for another one of its group in words.json.
    - `shuffle`: exchange neighbouring groups of three words.

    Each proposal is as probable from the negative back to the caption. Some are more probable as texts than others.
    With `language`, only those are kept that a reader of the texts alone does not tell (`Language.judge`).

    Kinds take turns, so that a few negatives cover many kinds. Fewer than `count`, or none, may be returned.
    """
    text = Words.of(caption)
    made: dict[str, list[str]] = {}
    for kind in kinds:
        made |= {name: list(texts) for name, texts in _MAKERS[kind](text).items()}
    draw = _draws(caption, seed, index)
    keeps = None if language is None else language.judge(caption)
    shuffled = [
        [Negative(texts[place], kind) for place in draw.permutation(len(texts))]
        for kind, texts in made.items()
    ]
    turns = [shuffled[place] for place in draw.permutation(len(shuffled))]
    found: dict[str, Negative] = {}
    for negative in (text for turn in zip_longest(*turns) for text in turn if text is not None):
        if len(found) == count:
            break
        if negative.lower() == caption.lower() or negative.lower() in found:
            continue
        if keeps is None or keeps(negative, draw.random()):
            found[negative.lower()] = negative
    return tuple(found.values())


def balanced(
    caption: str, negatives: Sequence[str], language: Language | None, *, seed: int, index: int
) -> tuple[str, ...]:
    """Return those of a caption's own negatives that a reader of the texts alone does not tell."""
    if language is None:
        return tuple(negatives)
    draw, keeps = _draws(caption, seed, index), language.judge(caption)
    return tuple(text for text in negatives if keeps(text, draw.random()))


def _draws(caption: str, seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence([seed & _UINT64, index, zlib.crc32(caption.encode())]))
    )


def _swaps(text: Words) -> dict[str, Iterable[str]]:
    phrases, verbs = phrases_and_verbs(text)
    kinds = {
        "swap attribute": _attributes(text, phrases),
        "swap noun": _nouns(text, phrases),
        "swap phrase": _wholes(text, phrases),
        "swap verb": _verbs(text, verbs),
    }
    return {kind: [_swapped(text, swap) for swap in swaps] for kind, swaps in kinds.items()}


def _moves(text: Words) -> dict[str, Iterable[str]]:
    phrases, _ = phrases_and_verbs(text)
    longer = [phrase for phrase in phrases if phrase.stop - phrase.start > 1]
    bare = [phrase for phrase in phrases if phrase.stop - phrase.start == 1]
    return {"move attribute": (_moved(text, one.stop - 2, other.start) for one in longer for other in bare)}


def _replacements(text: Words) -> dict[str, Iterable[str]]:
    return {
        f"replace {kind}": [
            _replaced(text, place, other)
            for place in range(len(text.words))
            for group in groups
            if text.lower(place) in group
            for other in group
            if other != text.lower(place)
        ]
        for kind, groups in _GROUPS.items()
    }


def _shuffles(text: Words) -> dict[str, Iterable[str]]:
    starts = range(0, len(text.words) - 5, 3)
    return {"shuffle": (_swapped(text, ((start, start + 3), (start + 3, start + 6))) for start in starts)}


_MAKERS: Mapping[NegativeKind, Callable[[Words], dict[str, Iterable[str]]]] = {
    "swap": _swaps,
    "move": _moves,
    "replace": _replacements,
    "shuffle": _shuffles,
}
KINDS: tuple[NegativeKind, ...] = tuple(_MAKERS)


def _attributes(text: Words, phrases: list[Span]) -> Iterator[Swap]:
    """Swap words at the same distance from the ends of two phrases, which swaps colour with colour."""
    for one, other in combinations(phrases, 2):
        for distance in range(2, min(one.stop - one.start, other.stop - other.start) + 1):
            first, second = one.stop - distance, other.stop - distance
            if _tells_apart(text, phrases, one, other, first, second):
                yield (first, first + 1), (second, second + 1)


def _nouns(text: Words, phrases: list[Span]) -> Iterator[Swap]:
    """Swap the last words of two phrases of one number. Phrases of one word each are left to `_wholes`."""
    for one, other in combinations(phrases, 2):
        first, second = one.stop - 1, other.stop - 1
        bare = one.stop - one.start == 1 and other.stop - other.start == 1
        alike = _is_plural(text, one) == _is_plural(text, other)
        if alike and not bare and _tells_apart(text, phrases, one, other, first, second):
            yield (first, first + 1), (second, second + 1)


def _wholes(text: Words, phrases: list[Span]) -> Iterator[Swap]:
    for one, other in combinations(phrases, 2):
        same = _lower(text, range(one.start, one.stop)) == _lower(text, range(other.start, other.stop))
        alike = _is_plural(text, one) == _is_plural(text, other)
        if alike and not same and not _is_symmetric(text, phrases, one, other):
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
    return joining <= SYMMETRIC | POSTURES | {"is", "are"} and not after & REFERENCES


def _lower(text: Words, places: Iterable[int]) -> list[str]:
    return [text.lower(place) for place in places]


def _is_plural(text: Words, phrase: Span) -> bool:
    """Return whether a phrase is about several things, by its determiner or by its noun."""
    if phrase.determined < phrase.start and text.lower(phrase.determined) in _SINGULAR:
        return False
    noun = text.lower(phrase.stop - 1)
    return noun in _PLURALS or (noun.endswith("s") and not noun.endswith(("ss", "us")))


def _replaced(text: Words, place: int, other: str) -> str:
    words = list(text.words)
    words[place] = other.capitalize() if words[place].istitle() else other
    return _joined(text, words, text.gaps)


def _moved(text: Words, place: int, before: int) -> str:
    """Return the caption with a word moved before another one."""
    words, gaps = list(text.words), list(text.gaps)
    moved = words.pop(place)
    del gaps[place + 1]
    before -= place < before
    words.insert(before, moved)
    gaps.insert(before + 1, " ")
    if text.words[0].istitle() and words[0] != text.words[0]:
        words[1 if before == 0 else before] = words[1 if before == 0 else before].lower()
        words[0] = words[0][:1].upper() + words[0][1:]
    return _joined(text, words, gaps)


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
    return _joined(text, words, gaps)


def _joined(text: Words, words: list[str], gaps: Sequence[str]) -> str:
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
