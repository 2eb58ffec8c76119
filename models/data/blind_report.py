"""What text alone tells of the hard negatives of pairs, by kind, for a run's log."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from sds_clip.models.blind import MOST, Choice, Encode, blind_accuracy
from sds_clip.models.data.pairs import PairSet, kind_of


def choices_of(pairs: PairSet) -> Iterator[Choice]:
    """The choices of about a thousand samples, evenly spaced."""
    step = math.ceil(len(pairs) / MOST)
    for sample in (pairs.sample(index) for index in range(0, len(pairs), step)):
        for caption, negatives in zip(sample.captions, sample.negatives, strict=True):
            yield from (Choice(sample.name, caption, negative) for negative in negatives)


def by_kind(choices: Iterable[Choice]) -> dict[str, list[Choice]]:
    """The choices by the kind of their negatives. The data's own, of no known kind, are `data`."""
    kinds: defaultdict[str, list[Choice]] = defaultdict(list)
    for choice in choices:
        kinds[kind_of(choice.negative) or "data"].append(choice)
    return dict(sorted(kinds.items()))


def blind_report(pairs: PairSet, encode: Encode) -> Iterator[str]:
    """A line for each kind of the pairs' negatives, for a run's log."""
    for kind, choices in by_kind(choices_of(pairs)).items():
        words, tower = blind_accuracy(choices), blind_accuracy(choices, encode)
        yield (
            f"negatives, {kind}: text alone tells {words.accuracy:.1%} by n-grams and {tower.accuracy:.1%} by the "
            f"base's text embeddings (± {words.half_width:.1%} of {words.items}; chance 50 %)"
        )
