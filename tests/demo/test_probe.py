"""Linear probes: known embeddings give known accuracies."""

import sys

import pytest
import torch
from torch import Tensor

from sds_clip.demo import probe
from sds_clip.demo.places import colour_of, in_order, shape_of
from sds_clip.demo.probe import (
    PROBES,
    accuracies,
    captions_of,
    choices_of,
    fit,
    probed,
    right_choices,
    two_object_scenes,
)  # fmt: skip
from sds_clip.demo.world import COLOURS, SHAPES, Scene, Split

TRAIN, VALIDATION = two_object_scenes(Split.TRAIN, 1500), two_object_scenes(Split.VALIDATION, 200)


def slots(scenes: list[Scene]) -> Tensor:
    """The shape, the colour and both together of the first and of the second object, one-hot."""
    rows = torch.zeros(len(scenes), 2, len(SHAPES) + len(COLOURS) + len(SHAPES) * len(COLOURS))
    for row, scene in enumerate(scenes):
        for place, thing in enumerate(in_order(scene)):
            shape, colour = shape_of(thing), colour_of(thing)
            rows[row, place, shape] = 1
            rows[row, place, len(SHAPES) + colour] = 1
            rows[row, place, len(SHAPES) + len(COLOURS) + shape * len(COLOURS) + colour] = 1
    return rows.flatten(1)


def words(scenes: list[Scene]) -> Tensor:
    """What the objects are, whichever is first: a bag of words."""
    return slots(scenes).unflatten(1, (2, -1)).sum(dim=1)[:, : len(SHAPES) + len(COLOURS)]


def test_embedding_that_holds_what_is_where_is_read_wholly() -> None:
    found = probed(slots(TRAIN), slots(VALIDATION), (TRAIN, VALIDATION))
    assert min(accuracies(found)) > 0.93


def test_bag_of_words_is_read_at_chance() -> None:
    found = probed(words(TRAIN), words(VALIDATION), (TRAIN, VALIDATION))
    assert 0.35 < min(accuracies(found)) <= max(accuracies(found)) < 0.65


def test_choices_are_the_objects_in_order_and_each_shape_s_colour() -> None:
    first, second = in_order(VALIDATION[0])
    places = choices_of(VALIDATION[:1], "places of shapes")
    assert (places.right.tolist(), places.wrong.tolist()) == ([shape_of(first)], [shape_of(second)])
    bindings = choices_of(VALIDATION[:1], "bindings")
    right = [shape_of(thing) * 12 + colour_of(thing) for thing in (first, second)]
    wrong = [shape_of(first) * 12 + colour_of(second), shape_of(second) * 12 + colour_of(first)]
    assert (bindings.right.tolist(), bindings.wrong.tolist()) == (right, wrong)


def test_fit_is_the_logistic_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    choices = choices_of(TRAIN, "places of shapes")
    features = slots(TRAIN)[:, : len(SHAPES)]
    weights = fit(features, choices)
    signs = torch.zeros(len(TRAIN), len(SHAPES))
    signs[torch.arange(len(TRAIN)), choices.right] = 1
    signs[torch.arange(len(TRAIN)), choices.wrong] = -1
    inputs = torch.einsum("ns,nd->nsd", signs, features).flatten(1)
    both, labels = torch.cat([inputs, -inputs]), [1] * len(TRAIN) + [0] * len(TRAIN)
    # scikit-learn sums the losses and halves the penalty.
    model = LogisticRegression(
        C=1 / (2 * 1e-4 * 2 * len(TRAIN)), fit_intercept=False, max_iter=2000, tol=1e-8
    )
    expected = torch.tensor(model.fit(both.numpy(), labels).coef_).view(len(SHAPES), -1).float()
    torch.testing.assert_close(weights, expected, rtol=0.05, atol=0.05)


def test_tie_is_wrong() -> None:
    choices = choices_of(VALIDATION, "places of colours")
    weights = torch.zeros(len(COLOURS), slots(VALIDATION).shape[1])
    assert not any(right_choices(slots(VALIDATION), weights, choices))


def test_scenes_have_two_shapes_and_two_colours_and_captions_tell_all() -> None:
    for scene, text in zip(VALIDATION[:50], captions_of(VALIDATION[:50]), strict=True):
        first, second = scene.things
        assert first.shape != second.shape
        assert first.colour != second.colour
        assert {first.shape, second.shape, first.colour, second.colour} <= set(text.split())


def test_command_prints_a_row_for_each_representation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(probe, "FITTED", 64)
    monkeypatch.setattr(probe, "MEASURED", 32)
    monkeypatch.setattr(sys, "argv", ["probe", "demo", "--teacher", "demo"])
    probe.main()
    printed = capsys.readouterr().out
    assert [line.split("|")[2].strip() for line in printed.splitlines()[2:-1]] == [
        "pooled image embedding", "last patch tokens", "text embedding",
        "mapper's latents", "autoencoder's latents", "text encoder",
    ]  # fmt: skip
    assert len(PROBES) == 3
