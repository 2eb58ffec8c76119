"""Pairs out of groups that a model has matched by itself."""

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.results import ItemOutcome, Results
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.training.matching import Match, MatchedPairs, matches, surest


def item(id: str, tmp_path: Path, count: int = 2) -> Item:
    files = [tmp_path / f"{id}-{image}.png" for image in range(count)]
    for shade, file in enumerate(files):
        Image.new("RGB", (4, 4), (60 * shade, 0, 0)).save(file)
    return Item(id, tuple(map(ImageRef, files)), tuple(f"caption {id}{k}" for k in range(count)))


def results(scores: dict[str, list[list[float]]]) -> Results:
    outcomes = tuple(
        ItemOutcome(id=id, correct={}, margins={}, scores=tuple(map(tuple, rows)))
        for id, rows in scores.items()
    )
    return Results(
        benchmark="winoground", primary="group_score", outcome="group", metrics={}, by_tag={}, items=outcomes
    )


def given(found: list[Match]) -> dict[str, str]:
    """The caption of each image file."""
    return {
        ref.path.name: match.item.captions[match.order[image]]
        for match in found
        for image, ref in enumerate(match.item.images)
    }


def test_each_image_gets_its_caption_in_the_assignment_with_the_highest_sum(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(3, 3))
    (found,) = matches([item("a", tmp_path, 3)], results({"a": scores.tolist()}))

    sums = {order: scores[list(order), range(3)].sum() for order in permutations(range(3))}
    first, second = sorted(sums.values(), reverse=True)[:2]
    assert sums[found.order] == first
    assert found.margin == pytest.approx(first - second)


def test_the_order_in_which_captions_stand_says_nothing(tmp_path: Path) -> None:
    """Data sets name the right caption of image k as caption k, which a matcher must not know."""
    plain = item("a", tmp_path)
    turned = replace(plain, captions=plain.captions[::-1])
    rows = [[0.1, 0.3], [0.25, 0.2]]

    one, other = (matches([group], results({"a": of})) for group, of in ((plain, rows), (turned, rows[::-1])))

    assert given(one) == given(other) == {"a-0.png": "caption a1", "a-1.png": "caption a0"}
    assert [MatchedPairs(found).sample(0).captions for found in (one, other)] == [("caption a1",)] * 2


def test_the_surest_are_kept_and_ties_are_none(tmp_path: Path) -> None:
    groups = [item(id, tmp_path) for id in "abcd"]
    found = matches(
        groups,
        results(
            {
                "a": [[0.2, 0.1], [0.1, 0.2]],
                "b": [[0.5, 0.1], [0.1, 0.5]],
                "c": [[0.1, 0.1], [0.1, 0.1]],
                "d": [[0.1, 0.4], [0.4, 0.1]],
            }
        ),
    )

    assert [match.item.id for match in surest(found, 0.5)] == ["b", "d"]
    assert [match.item.id for match in surest(found, 1.0)] == ["a", "b", "d"]


def test_pairs_are_the_images_with_what_they_were_given_against_the_rest_of_the_group(tmp_path: Path) -> None:
    group = item("a", tmp_path)
    pairs = MatchedPairs([Match(group, (1, 0), 0.1)])

    assert [pairs.sample(index).captions for index in range(2)] == [("caption a1",), ("caption a0",)]
    assert [pairs.sample(index).negatives for index in range(2)] == [
        (("caption a0",),),
        (("caption a1",),),
    ]
    assert pairs.image(1).getpixel((0, 0)) == (60, 0, 0)
    assert pairs.content_hash != MatchedPairs([Match(group, (0, 1), 0.1)]).content_hash


def test_a_benchmark_without_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no groups of images and captions to match; use winoground"):
        matches([item("a", tmp_path)], results({"a": []}))
