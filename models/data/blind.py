"""What a reader who sees no image tells of negatives: the share of the choices in which it finds the caption."""

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from sds_clip.models.data.language import n_grams
from sds_clip.models.data.pairs import PairSet, kind_of

_FOLDS = 5
_EPOCHS = 10
_BUCKETS = 2**18
_MOST = 1000
"""So many choices say enough: the interval is 3 points wide on either side."""

Encode = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]
Row = tuple[np.ndarray, np.ndarray]
"""Where features of the caption and of the negative differ, and by how much."""


class Choice(NamedTuple):
    """A caption and one of its negatives. Choices with the same `group` are always in one fold."""

    group: str
    caption: str
    negative: str


class Told(NamedTuple):
    """How often a reader found the caption. Chance is 0.5."""

    items: int
    accuracy: float
    half_width: float
    """Of the 95 % interval, by the normal approximation."""


def choices_of(pairs: PairSet) -> Iterator[Choice]:
    """The choices of about a thousand samples, evenly spaced."""
    step = math.ceil(len(pairs) / _MOST)
    for sample in (pairs.sample(index) for index in range(0, len(pairs), step)):
        for caption, negatives in zip(sample.captions, sample.negatives, strict=True):
            yield from (Choice(sample.name, caption, negative) for negative in negatives)


def by_kind(choices: Iterable[Choice]) -> dict[str, list[Choice]]:
    """The choices by the kind of their negatives. The data's own, of no known kind, are `data`."""
    kinds: defaultdict[str, list[Choice]] = defaultdict(list)
    for choice in choices:
        kinds[kind_of(choice.negative) or "data"].append(choice)
    return dict(sorted(kinds.items()))


def told(choices: Sequence[Choice], encode: Encode | None = None, *, most: int = _MOST) -> Told:
    """Let a reader learn which of two texts is the caption, and count how often it is right where it has not learned.

    The reader is a logistic regression on the difference of the two texts' 1- to 3-grams, or of their embeddings, if
    `encode` is given. Of many choices it sees `most`, evenly spaced. A tie counts half.
    """
    choices = choices[:: math.ceil(len(choices) / most) or 1]
    rows = [_differences(choice) for choice in choices]
    width = _BUCKETS
    if encode is not None:
        captions, negatives = ([choice[place] for choice in choices] for place in (1, 2))
        embeddings = encode(captions) - encode(negatives)
        width = embeddings.shape[1]
        rows = [(np.arange(width), row) for row in embeddings]
    margins = _margins([_unit(row) for row in rows], [choice.group for choice in choices], width)
    accuracy = float(np.mean((np.sign(margins) + 1) / 2)) if len(margins) else math.nan
    return Told(len(choices), accuracy, 1.96 * math.sqrt(accuracy * (1 - accuracy) / max(len(choices), 1)))


def report(pairs: PairSet, encode: Encode) -> Iterator[str]:
    """A line for each kind of the pairs' negatives, for a run's log."""
    for kind, choices in by_kind(choices_of(pairs)).items():
        words, tower = told(choices), told(choices, encode)
        yield (
            f"negatives, {kind}: text alone tells {words.accuracy:.1%} by n-grams and {tower.accuracy:.1%} by the "
            f"base's text embeddings (± {words.half_width:.1%} of {words.items}; chance 50 %)"
        )


def _margins(rows: Sequence[Row], groups: Sequence[str], width: int) -> Float[np.ndarray, " n"]:
    """By how much each caption is preferred, by weights learned in the other folds and averaged over epochs."""
    folds = np.array([zlib.crc32(group.encode()) % _FOLDS for group in groups])
    margins = np.zeros(len(rows))
    for fold in range(_FOLDS):
        weights, mean = np.zeros(width), np.zeros(width)
        draw = np.random.default_rng(fold)
        for epoch in range(_EPOCHS):
            for index in draw.permutation(np.flatnonzero(folds != fold)):
                places, values = rows[int(index)]
                wrong = 1 / (1 + math.exp(min(30.0, float(weights[places] @ values))))
                weights[places] += values * wrong / (1 + 0.3 * epoch)
            mean += weights
        for index in np.flatnonzero(folds == fold):
            places, values = rows[int(index)]
            margins[index] = mean[places] @ values
    return margins


def _differences(choice: Choice) -> Row:
    counts = Counter[int]()
    for text, sign in ((choice.caption, 1), (choice.negative, -1)):
        for grams in n_grams(text):
            for gram in grams:
                counts[gram % _BUCKETS] += sign
    found = {place: count for place, count in counts.items() if count}
    return np.array(list(found), np.int64), np.array(list(found.values()), np.float64)


def _unit(row: Row) -> Row:
    return row[0], row[1] / max(float(np.linalg.norm(row[1])), 1e-12)
