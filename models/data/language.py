"""A set's captions as one knows them who sees no image: how often words follow each other."""

import math
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from sds_clip.models.blind import n_grams

_BUCKETS = 2**24
_BACK_OFF = 3.0
"""A word after one or two others is as probable as its counts and this many words by the shorter context say."""


class Language:
    """Counts of the 1-, 2- and 3-grams of captions, which are hashed into 64 MiB."""

    def __init__(self, captions: Iterable[str]) -> None:
        self._counts = np.zeros(_BUCKETS, np.int32).data  # whose numbers are read faster one by one
        self._words = 0
        for caption in captions:
            for grams in n_grams(caption):
                self._words += 1
                for gram in grams:
                    self._counts[gram % _BUCKETS] += 1

    def judge(self, caption: str) -> Callable[[str, float], bool]:
        """Whether a negative of one of the captions is kept, by a draw that is uniform in [0, 1).

        It is kept with the probability p(negative) / p(caption), at most 1. This is Metropolis' rule. If the negative
        of a negative is the caption with the same probability, then of any two texts each is as often the caption and
        the other one its negative. So whoever knows p alone cannot tell which is which. The caption itself is not
        counted, since that would tell.
        """
        own = Counter(gram % _BUCKETS for grams in n_grams(caption) for gram in grams)
        usual = self._log_probability(caption, own)
        return lambda negative, draw: draw < math.exp(min(0.0, self._log_probability(negative, own) - usual))

    def _log_probability(self, text: str, own: Counter[int]) -> float:
        log_probability = 0.0
        context = [self._words]
        for grams in n_grams(text):
            buckets = (gram % _BUCKETS for gram in grams)
            counts = [max(0, self._counts[bucket] - own[bucket]) for bucket in buckets]
            probability = (counts[0] + 0.5) / (self._words + 1)
            for count, before in zip(counts[1:], context, strict=False):
                probability = (count + _BACK_OFF * probability) / (before + _BACK_OFF)
            log_probability += math.log(probability)
            context = counts
        return log_probability
