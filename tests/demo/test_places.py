"""What the student's heads are trained on, checked by hand and against the pixels."""

from dataclasses import replace

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from sds_clip.demo.captions import Wording, caption
from sds_clip.demo.places import (
    HEAD_SIZES,
    SLOT_SIZES,
    UNSAID,
    bindings_loss,
    colour_of,
    in_order,
    place_targets,
    places_loss,
    shape_of,
    slots_loss,
    told_captions,
)
from sds_clip.demo.sets import training_pairs
from sds_clip.demo.winoground_sets import two_different
from sds_clip.demo.world import COLOURS, SHAPES, Relation, with_places_exchanged

SCENES = training_pairs(0, 0, 200).scenes
PAIRS = [scene for scene in SCENES if len(scene.things) == 2]


def test_first_object_is_further_left_or_further_up() -> None:
    for scene in PAIRS:
        first, second = in_order(scene)
        if scene.relation in (Relation.LEFT, Relation.RIGHT):
            assert first.x_px < second.x_px
        else:
            assert first.y_px < second.y_px


def test_targets_name_the_objects_in_order_and_their_direction() -> None:
    scene = next(scene for scene in PAIRS if scene.relation is Relation.RIGHT)
    second, first = scene.things  # the first one is right of the second
    colours = tuple(COLOURS)
    slots = [[SHAPES.index(each.shape), colours.index(each.colour)] for each in (first, second)]
    things = [12 * shape + colour for shape, colour in slots]
    (found,) = place_targets([scene], [True]).tolist()
    assert found == [*slots[0], *slots[1], 1, *things]
    (exchanged,) = place_targets([with_places_exchanged(scene)], [True]).tolist()
    assert exchanged == [*slots[1], *slots[0], 1, *things[::-1]]


def test_what_is_not_told_is_no_target() -> None:
    single = next(scene for scene in SCENES if len(scene.things) == 1)
    targets = place_targets([single, PAIRS[0]], [True, False])
    assert (targets[0, [0, 1, 5]] >= 0).all()
    assert (targets[0, [2, 3, 4, 6]] == UNSAID).all()
    assert (targets[1] == UNSAID).all()


def test_caption_tells_places_if_it_names_the_relation_and_both_colours() -> None:
    whole = Wording("{a} {relation} {b}", 0, False, (True, True), (None, None))
    assert whole.tells_places
    assert not replace(whole, frame="{a} and {b}").tells_places
    assert not replace(whole, colours=(True, False)).tells_places
    assert PAIRS[0].things[0].colour in caption(PAIRS[0], whole)


def test_losses_are_the_mean_cross_entropies_of_the_heads() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, sum(HEAD_SIZES), generator=generator)
    targets = place_targets(PAIRS[:4], [True, True, True, False])
    expected, start = [], 0
    for head, size in enumerate(HEAD_SIZES[:5]):
        expected.append(cross_entropy(logits[:3, start : start + size], targets[:3, head]).item())
        start += size
    np.testing.assert_allclose(places_loss(logits, targets).item(), np.mean(expected), rtol=1e-5)
    present = [cross_entropy(logits[:3, start:], targets[:3, place]).item() for place in (5, 6)]
    np.testing.assert_allclose(bindings_loss(logits, targets).item(), np.mean(present), rtol=1e-5)


def test_slots_have_one_head_for_each_target() -> None:
    logits = torch.randn(4, sum(SLOT_SIZES), generator=torch.Generator().manual_seed(0))
    targets = place_targets(PAIRS[:4], [True, True, True, False])
    expected, start = [], 0
    for slot, size in enumerate(SLOT_SIZES):
        expected.append(cross_entropy(logits[:3, start : start + size], targets[:3, slot]).item())
        start += size
    assert start == logits.shape[1]
    np.testing.assert_allclose(slots_loss(logits, targets).item(), np.mean(expected), rtol=1e-5)


def test_bindings_loss_is_least_for_the_things_present_in_either_order() -> None:
    targets = place_targets([PAIRS[0], with_places_exchanged(PAIRS[0])], [True, True])
    logits = torch.zeros(2, sum(HEAD_SIZES))
    logits[:, sum(HEAD_SIZES[:5]) + targets[0, 5:]] = 100
    np.testing.assert_allclose(bindings_loss(logits, targets).item(), np.log(2), rtol=1e-6)


def test_sum_of_features_for_shape_and_colour_does_not_tell_bindings() -> None:
    scene = next(scene for scene in PAIRS if two_different(scene))
    shapes, colours = (
        torch.tensor([[float(of(thing) == place) for place in range(count)] for thing in scene.things]).sum(
            dim=0
        )
        for of, count in ((shape_of, len(SHAPES)), (colour_of, len(COLOURS)))
    )
    logits = torch.zeros(1, sum(HEAD_SIZES))
    logits[:, sum(HEAD_SIZES[:5]) :] = 100 * (shapes[:, None] + colours[None]).flatten()
    found = bindings_loss(logits, place_targets([scene], [True])).item()
    np.testing.assert_allclose(found, np.log(4), rtol=1e-6)


def test_captions_and_targets_tell_the_same() -> None:
    captions, targets = told_captions(PAIRS, np.random.default_rng(0))
    whole = place_targets(PAIRS, [True] * len(PAIRS))
    told = targets[:, 0] != UNSAID
    assert torch.equal(targets[told], whole[told])
    assert (targets[~told] == UNSAID).all()
    for scene, text, tells in zip(PAIRS, captions, told.tolist(), strict=True):
        colours = [word for word in text.split() if word in COLOURS]
        direction = {"left", "right", "above", "below", "over", "under", "higher", "lower", "atop", "beneath"}
        assert tells == (len(colours) == 2 and bool(direction & {*text.split()})), text
        assert {thing.shape for thing in scene.things} <= {*text.split()}
