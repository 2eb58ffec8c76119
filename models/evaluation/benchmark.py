"""A benchmark, and one run of it: check, score and measure its items, and record the provenance."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.catalog import check_scorer
from sds_clip.models.evaluation.computed_by import code_version
from sds_clip.models.evaluation.image_check import Problems, Say, data_hash, look_at_images, quiet
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.results import ItemOutcome, Results
from sds_clip.models.evaluation.scorers import Scorer
from sds_clip.models.findings import LISTED


@dataclass(frozen=True)
class Benchmark(ABC):
    """A benchmark's data, after reading.

    `settings` are other things that the figures depend on, such as templates or a seed. All are part of the
    data's hash. Those whose names do not start with an underscore are recorded in the provenance.
    """

    name: str
    items: tuple[Item, ...]
    settings: dict[str, Any]

    @property
    def seed(self) -> int | None:
        """The seed of the draws that made the items, or None if nothing was drawn."""
        return self.settings.get("order_set_seed")

    @abstractmethod
    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say) -> Results:
        """Compute the figures over these items, which have been prepared.

        The provenance is what the benchmark itself adds to that of a run.
        """


def run_benchmark(
    benchmark: Benchmark, scorer: Scorer, *, max_bad_share: float = 0.0, say: Say = quiet
) -> Results:
    """Check, prepare and measure a benchmark.

    Raises:
        EvaluationError: more than `max_bad_share` of the items cannot be used, the benchmark is not for this
            scorer, or scores are not finite.
    """
    if not 0 <= max_bad_share <= 1:
        raise EvaluationError(f"max_bad_share is {max_bad_share}; give a share from 0 to 1.")
    check_scorer(benchmark.name, scorer.name)
    problems = Problems(len(benchmark.items), max_bad_share)
    images = look_at_images(benchmark.items, problems, say)
    scorer.prepare(problems.usable(benchmark.items), images, problems, say)
    problems.check()
    usable = problems.usable(benchmark.items)
    found = benchmark.measure(usable, scorer, say)
    provenance = {
        "seed": benchmark.seed,
        **scorer.describe(),  # overrides the seed if the scorer draws
        "scorer": scorer.name,
        "data_hash": data_hash(usable, images.keys, benchmark.settings),
        "items": len(benchmark.items),
        "items_used": len(usable),
        "items_left_out": dict(list(problems.found.items())[:LISTED]),
        "unique_images": len(set(images.keys.values())),
        "boxes_over_the_edge": images.over_the_edge,
        "settings": {key: value for key, value in benchmark.settings.items() if not key.startswith("_")},
        "code_version": code_version(),
        "torch": torch.__version__,
        **({"macro_tags": list(found.macro_tags)} if found.macro_tags else {}),
        **found.provenance,
    }
    return replace(found, provenance=provenance)


def check_finite(scores: Float[Tensor, "*shape"]) -> None:
    if not bool(torch.isfinite(scores).all()):
        raise EvaluationError(
            "Some scores are not finite. The model's weights are damaged, or its precision is too "
            "low; try float32."
        )


def outcome_of(item: Item, margins: dict[str, float]) -> ItemOutcome:
    """Return an item's outcome, right where a margin is positive."""
    return ItemOutcome(
        id=item.id,
        correct={name: margin > 0 for name, margin in margins.items()},
        margins=margins,
        tags=item.tags,
        images=item.files,
        captions=item.captions,
    )
