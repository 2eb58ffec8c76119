"""The pairs that the demo's distillation trains on, in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Literal

import numpy as np
import PIL.Image
from jaxtyping import Float, UInt8

from sds_clip.demo.captions import Wording, caption, draw_wording
from sds_clip.demo.sets import pairs
from sds_clip.demo.winoground_sets import two_different
from sds_clip.demo.world import (
    COLOURS,
    SHAPES,
    Relation,
    Scene,
    Split,
    Thing,
    combination_split,
    with_colours_exchanged,
)
from sds_clip.models.data.pairs import PairSet, Sample

if TYPE_CHECKING:  # torch and open_clip, which `make demo` does not wait for
    from torch import Tensor

    from sds_clip.models.clip.model import Clip

DISTILLATION_SEED = 2000  # differs from the student's and the teacher's
WORDING_SEED = 2002
IMAGES_AT_ONCE = 128
PROPOSED = 8  # captions for each image: as many as the words of two objects make
Captions = Literal["exact", "tags", "proposed"]

# The wordings of the list from which captions are proposed.
_SINGLE = Wording("{a}", 0, False, (True,), (None,))
_PAIR = Wording("{a} {relation} {b}", 0, False, (True, True), (None, None))


class DemoPairs(PairSet):
    """The first `size` pairs of a part, drawn from a seed.

    Their captions are as they are (`exact`), or only the `tags` of what is seen, with all captions that these words
    make as negatives. `proposed` captions and negatives are those that the model `proposer`
    finds best among all of the world's training captions, so that the pairs' own captions have no part in them.
    """

    def __init__(
        self,
        size: int,
        seed: int = DISTILLATION_SEED,
        split: Split = Split.TRAIN,
        *,
        captions: Captions = "exact",
        proposer: str = "demo",
    ) -> None:
        drawn = pairs(split, seed, 0, size)
        self._images, self.scenes = drawn.images, drawn.scenes
        self._texts: list[tuple[str, tuple[str, ...]]] = [(text, ()) for text in drawn.captions]
        if captions == "tags":
            self._texts = [
                (tags(scene), candidate_captions(scene, index)) for index, scene in enumerate(drawn.scenes)
            ]
        elif captions == "proposed":
            self._texts = proposed(drawn.images, proposer)
        digest = hashlib.sha256(self._images.tobytes())
        digest.update(json.dumps(self._texts).encode())
        self._hash = digest.hexdigest()

    @property
    def content_hash(self) -> str:
        """SHA-256 of the pixels and captions."""
        return self._hash

    def __len__(self) -> int:
        return len(self._texts)

    def sample(self, index: int) -> Sample:
        """The pair's caption and its negatives."""
        caption, negatives = self._texts[index]
        return Sample(f"pair {index}", (caption,), (negatives,))

    def image(self, index: int) -> PIL.Image.Image:
        return PIL.Image.fromarray(self._images[index])


def tags(scene: Scene) -> str:
    """The colours and shapes of a scene in alphabetical order: what is seen, and not what belongs together."""
    return ", ".join(sorted({word for thing in scene.things for word in (thing.colour, thing.shape)}))


def candidate_captions(scene: Scene, index: int) -> tuple[str, ...]:
    """All captions that the words of a scene make, in random order, in a wording that `index` determines.

    They bind the colours either way, and name each relation. With one shape, or one colour, exchanging colours says the
    same as exchanging places. A single object has no other caption, so it has none.
    """
    if scene.relation is None:
        return ()
    rng = np.random.default_rng((WORDING_SEED, index))
    wording = replace(draw_wording(2, rng, complete=True), sizes=(None, None))
    bound = (scene, with_colours_exchanged(scene)) if two_different(scene) else (scene,)
    said = [caption(replace(each, relation=relation), wording) for each in bound for relation in Relation]
    return tuple(said[place] for place in rng.permutation(len(said)))


def proposed(
    images: UInt8[np.ndarray, "n 64 64 3"], proposer: str = "demo"
) -> list[tuple[str, tuple[str, ...]]]:
    """For each image the best caption by a model, and the next best ones."""
    from sds_clip.models.clip.propose import best_captions

    clip, captions, features = _all_captions(proposer)
    found: list[tuple[str, tuple[str, ...]]] = []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        pictures = [PIL.Image.fromarray(image) for image in images[start : start + IMAGES_AT_ONCE]]
        for best, *others in best_captions(clip, pictures, captions, features, PROPOSED):
            found.append((best, tuple(others)))
    return found


def training_captions() -> Iterator[str]:
    """One caption of each training combination of objects and relation."""
    things = [_plain(shape, colour) for shape in SHAPES for colour in COLOURS]
    for thing in things:
        single = Scene((thing,), None, (0, 0, 0))
        if combination_split(single) is Split.TRAIN:
            yield caption(single, _SINGLE)
    for two in combinations(things, 2):
        pair = Scene(two, Relation.LEFT, (0, 0, 0))
        if combination_split(pair) is Split.TRAIN:
            for relation in Relation:
                yield caption(replace(pair, relation=relation), _PAIR)


def true_captions(scene: Scene) -> set[str]:
    """What `training_captions` may say of a scene: its first object's relation to the second, or the reverse."""
    things = tuple(_plain(thing.shape, thing.colour) for thing in scene.things)
    plain = replace(scene, things=things)
    if scene.relation is None:
        return {caption(plain, _SINGLE)}
    reverse = replace(plain, things=things[::-1], relation=scene.relation.reverse)
    return {caption(plain, _PAIR), caption(reverse, _PAIR)}


def _plain(shape: str, colour: str) -> Thing:
    return Thing(shape, colour, "small", 8, (0, 0, 0), 0, 0)


@cache
def _all_captions(proposer: str) -> tuple[Clip, list[str], Float[Tensor, "captions d"]]:
    from sds_clip.models.checkpoints.load import load_clip
    from sds_clip.models.clip.encode import encode_texts

    clip = load_clip(proposer, device="cpu", precision="float32")
    captions = list(training_captions())
    return clip, captions, encode_texts(clip, captions)
