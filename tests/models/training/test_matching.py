"""Pairs out of groups that a model has matched by itself."""

import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.whats_up import coco_spatial, whats_up
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.training.matching import Match, MatchedPairs, groups_of, matches, surest
from tests.benchmark_sets import save_coco_spatial, save_controlled


def item(id: str, tmp_path: Path, count: int = 2) -> Item:
    files = [tmp_path / f"{id}-{image}.png" for image in range(count)]
    for shade, file in enumerate(files):
        Image.new("RGB", (4, 4), (60 * shade, 0, 0)).save(file)
    return Item(id, tuple(map(ImageRef, files)), tuple(f"caption {id}{k}" for k in range(count)))


def given(found: list[Match]) -> dict[str, str]:
    """The caption of each image file."""
    return {
        ref.path.name: match.item.captions[match.order[image]]
        for match in found
        for image, ref in enumerate(match.item.images)
    }


def test_each_image_gets_its_caption_in_the_assignment_with_the_highest_sum(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(3, 3))
    (found,) = matches([item("a", tmp_path, 3)], [torch.from_numpy(scores)])

    sums = {order: scores[list(order), range(3)].sum() for order in permutations(range(3))}
    first, second = sorted(sums.values(), reverse=True)[:2]
    assert sums[found.order] == first
    assert found.margin == pytest.approx(first - second)


def test_the_order_in_which_captions_stand_says_nothing(tmp_path: Path) -> None:
    """Data sets name the right caption of image k as caption k, which a matcher must not know."""
    plain = item("a", tmp_path)
    turned = replace(plain, captions=plain.captions[::-1])
    rows = [[0.1, 0.3], [0.25, 0.2]]

    one, other = (matches([group], [torch.tensor(of)]) for group, of in ((plain, rows), (turned, rows[::-1])))

    assert given(one) == given(other) == {"a-0.png": "caption a1", "a-1.png": "caption a0"}
    assert [MatchedPairs(found).sample(0).captions for found in (one, other)] == [("caption a1",)] * 2


def test_the_surest_are_kept_and_ties_are_none(tmp_path: Path) -> None:
    groups = [item(id, tmp_path) for id in "abcd"]
    found = matches(
        groups,
        torch.tensor(
            [
                [[0.2, 0.1], [0.1, 0.2]],
                [[0.5, 0.1], [0.1, 0.5]],
                [[0.1, 0.1], [0.1, 0.1]],
                [[0.1, 0.4], [0.4, 0.1]],
            ]
        ),
    )

    assert [match.item.id for match in surest(found, 0.5)] == ["b", "d"]
    with pytest.raises(EvaluationError, match="does not prefer any way to match a group"):
        surest(found[2:3], 1.0)
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


def test_four_photographs_of_the_same_objects_are_a_group(tmp_path: Path) -> None:
    benchmark = whats_up(save_controlled(tmp_path))
    of = {item.id: item for item in benchmark.items}

    groups = groups_of(benchmark)

    assert [group.id for group in groups] == [f"set {', '.join(ids)}" for ids in benchmark.groups["set"]]
    for group, ids in zip(groups, benchmark.groups["set"], strict=True):
        assert group.images == tuple(of[id].images[0] for id in ids)
        assert {*group.captions} == {of[id].captions[0] for id in ids}
        assert len(group.captions) == 4


def test_a_set_that_lacks_a_photograph_is_no_group(tmp_path: Path) -> None:
    save_controlled(tmp_path)
    file = tmp_path / "controlled_images_dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8"))[1:]), encoding="utf-8")

    whole = groups_of(whats_up(tmp_path))

    assert len(whole) == len(whats_up(tmp_path).groups["set"]) - 1


def test_a_score_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="not finite"):
        matches([item("a", tmp_path)], [torch.tensor([[0.1, float("nan")], [0.2, 0.1]])])


def test_a_benchmark_without_groups_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no groups of images and captions to match; use winoground"):
        groups_of(coco_spatial(save_coco_spatial(tmp_path)))
