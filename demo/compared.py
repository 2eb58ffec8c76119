"""One test of the confirmation: the outcomes of its arms, and the measures that tables and figure show of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from sds_clip.demo.experiment import Outcome
from sds_clip.demo.probe import POOLED, PROBES, TEXT
from sds_clip.demo.sets import RETRIEVAL_BATCH
from sds_clip.demo.statistics import right
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.demo.world import COLOURS, SHAPES
from sds_clip.models.evaluation.estimate import Estimate, estimate
from sds_clip.models.evaluation.winoground import CHANCE, d_prime

Runs = Sequence[Sequence[Outcome]]
"""By base, by seed."""


@dataclass(frozen=True)
class Measure:
    """A measure of runs, and what chance reaches."""

    name: str
    chance: float
    of: Callable[[Sequence[Outcome]], Float[np.ndarray, "seeds items"]]
    """Its values for the runs of one base. One that a whole run has counts as one item."""
    percent: bool = True

    def values(self, runs: Runs) -> Float[np.ndarray, "bases seeds items"]:
        return np.stack([self.of(each) for each in runs])


def places(run: Outcome) -> list[float]:
    """Each scene's share of right places, of shapes and of colours, by the probes of the pooled image embedding."""
    shapes, colours, _ = run.probes[POOLED]
    return [(shape + colour) / 2 for shape, colour in zip(shapes, colours, strict=True)]


def _probe(runs: Sequence[Outcome], source: str, place: int) -> Float[np.ndarray, "seeds scenes"]:
    """Each scene's share of right choices; bindings have two a scene."""
    found = [run.probes[source] for run in runs]
    return np.array([np.reshape(each[place], (len(each[0]), -1)).mean(axis=1) for each in found])


def _of_run(
    runs: Sequence[Outcome], value: Callable[[Outcome], float | None]
) -> Float[np.ndarray, "seeds 1"]:
    """A value of a whole run, which is not a number where it is not defined."""
    return np.array([[value(run)] for run in runs], dtype=np.float64)


GROUP_MATCH = Measure("GroupMatch", CHANCE["group_match"], partial(right, score="group_match"))
PLACES = Measure("places, image", 0.5, lambda runs: np.array([places(run) for run in runs]))
MEASURES = (
    GROUP_MATCH,
    *(Measure(kind, CHANCE["group_match"], partial(right, score="group_match", kind=kind)) for kind in KINDS),
    Measure("d'", 0, partial(_of_run, value=lambda run: d_prime(run.measured.margins)), percent=False),
    Measure("group score", CHANCE["group"], partial(right, score="group")),
    Measure("retrieval", 1 / RETRIEVAL_BATCH, partial(_of_run, value=lambda run: run.measured.retrieval)),
    Measure(
        "zero-shot",
        1 / (len(COLOURS) * len(SHAPES)),
        partial(_of_run, value=lambda run: run.measured.zero_shot),
    ),
    PLACES,
    *(
        Measure(f"{name}, {tower}", 0.5, partial(_probe, source=source, place=place))
        for tower, source in (("image", POOLED), ("text", TEXT))
        for place, name in enumerate(PROBES)
    ),
)


@dataclass(frozen=True)
class Compared:
    """The outcomes of one test, by arm; `base` are the base students themselves."""

    name: str
    arms: Mapping[str, Runs]
    objective: str
    control: str
    placebo: str
    places: bool = False
    """Whether the linear probe of places is compared, instead of GroupMatch."""

    @property
    def measure(self) -> Measure:
        """What is compared."""
        return PLACES if self.places else GROUP_MATCH

    def lacking(self, seeds: Sequence[int]) -> list[str]:
        """The arms that do not have one run of each seed for every base."""
        wanted = {name: [0] if name == "base" else sorted(seeds) for name in self.arms}
        return [
            name
            for name, by_base in self.arms.items()
            if any([run.seed for run in runs] != wanted[name] for runs in by_base)
        ]

    def differences(self, other: str) -> Float[np.ndarray, "bases seeds items"]:
        """The objective minus another arm."""
        ours, theirs = (self.measure.values(self.arms[name]) for name in (self.objective, other))
        return np.asarray(ours - theirs)

    def difference(self, other: str) -> Estimate:
        return estimate(self.differences(other))
