"""What a reader who sees no image tells of false captions: the share of the choices in which it finds the true one."""

import math
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_MARKS = "".join(mark for mark in map(chr, range(2**16)) if unicodedata.category(mark) in ("Mn", "Mc"))
"""Vowels and accents that stand above or below a letter. They are part of its word, and not of re's \\w."""
WORD = re.compile(rf"[\w{_MARKS}]+(?:['\u2019-][\w{_MARKS}]+)*")
_FOLDS = 5
_EPOCHS = 10
_BUCKETS = 2**18
MOST = 1000
"""So many choices say enough: the interval is 3 points wide on either side."""

Encode = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]
Row = tuple[np.ndarray, np.ndarray]
"""Where features of the caption and of the negative differ, and by how much."""


class Choice(NamedTuple):
    """A caption and one of its negatives. Choices with the same `group` are always in one fold."""

    group: str
    caption: str
    negative: str


class BlindAccuracy(NamedTuple):
    """How often a reader found the caption. Chance is 0.5."""

    items: int
    accuracy: float
    half_width: float
    """Of the 95 % interval, by the normal approximation."""


def blind_accuracy(
    choices: Sequence[Choice], encode: Encode | None = None, *, most: int = MOST
) -> BlindAccuracy:
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
    return BlindAccuracy(
        len(choices), accuracy, 1.96 * math.sqrt(accuracy * (1 - accuracy) / max(len(choices), 1))
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


def n_grams(caption: str) -> Iterator[list[int]]:
    """Yield the hashes of the 1-, 2- and 3-gram that end with each word. The beginning and the end are words too."""
    words = ["<", *(word.lower() for word in WORD.findall(caption)), ">"]
    for end in range(1, len(words) + 1):
        yield [zlib.crc32(" ".join(words[end - size : end]).encode()) for size in range(1, min(3, end) + 1)]
