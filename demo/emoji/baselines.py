"""What is told without a network, on the same split: by the nearest picture, and by a linear map to words."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sds_clip.demo.emoji.draw import on_white
from sds_clip.demo.emoji.packages import HELD_OUT, SEEN, Concept
from sds_clip.demo.emoji.pictures import Pictures
from sds_clip.demo.emoji.scenes import concept_split
from sds_clip.demo.world import Split

SIDE_PX = 16
RIDGE = 0.03
"""Of the mean squared length of a picture's pixels; found on a vendor that was seen."""


def nearest(
    pictures: Pictures, seen: Sequence[str] | None = None, held_out: str = HELD_OUT.name
) -> Float[Tensor, "n c"]:
    """A score of each concept for each picture of a vendor: less the distance to its nearest picture by others."""
    known, concept = _known(pictures, seen)
    asked = _pixels(pictures, pictures.of([held_out]))
    near = -torch.cdist(asked, known)
    scores = torch.full((len(asked), len(pictures.concepts)), -torch.inf)
    return scores.scatter_reduce(1, concept.expand(len(asked), -1), near, "amax")


def linear(
    pictures: Pictures, seen: Sequence[str] | None = None, held_out: str = HELD_OUT.name, ridge: float = RIDGE
) -> Float[Tensor, "n c"]:
    """A score of each concept for each picture of a vendor: how well its name's words fit those that a ridge regression
    on pixels expects.
    """
    known, concept = _known(pictures, seen)
    asked = _pixels(pictures, pictures.of([held_out]))
    words = _words(pictures.concepts)
    mean, said = known.mean(dim=0), words[concept]
    known, asked = known - mean, asked - mean
    gram = known @ known.T
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    expected = asked @ known.T @ torch.linalg.solve(gram, said - said.mean(dim=0)) + said.mean(dim=0)
    return F.normalize(expected, dim=1) @ words.T


def _known(pictures: Pictures, seen: Sequence[str] | None) -> tuple[Float[Tensor, "n p"], Tensor]:
    """The pixels and the concepts of the pictures that the student was trained on."""
    codes = {each.code for each in pictures.concepts if concept_split(each) is Split.TRAIN}
    places = pictures.of(seen or [each.name for each in SEEN], codes)
    return _pixels(pictures, places), torch.from_numpy(pictures.concept[places])


def _pixels(pictures: Pictures, places: np.ndarray) -> Float[Tensor, "n p"]:
    """16 x 16 pixels on white, and how opaque they are."""
    pixels = pictures.tensor(places)
    seen = torch.cat([on_white(pixels), pixels[:, 3:].float() / 255], dim=1)
    return F.interpolate(seen, size=(SIDE_PX, SIDE_PX), mode="area").flatten(1)


def _words(concepts: Sequence[Concept]) -> Float[Tensor, "c w"]:
    """Each name's words, a rare one more, as unit vectors."""
    said = [set(re.findall(r"\w+", each.name.lower())) for each in concepts]
    every = sorted(set().union(*said))
    found = torch.tensor([[float(word in words) for word in every] for words in said])
    return F.normalize(found * (len(said) / found.sum(dim=0)).log(), dim=1)
