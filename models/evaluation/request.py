"""What an evaluation is asked to do: the options, their defaults, and which of them belong together.

The command line, the API and the jobs take them from here. This module imports nothing heavy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from sds_clip.models.choices import SCORE_ERROR, ErrorOf, Precision
from sds_clip.models.evaluation.catalog import BENCHMARKS, Option, ScorerName, check_scorer, resolve


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What is measured, on what, and how.

    Raises:
        ValueError: the options do not belong together.
    """

    benchmark: str
    data: str | Path
    scorer: ScorerName = "clip"
    model: str | None = None
    """The CLIP that the scorer `clip` measures."""
    teacher: str | None = None
    """The diffusion model that the scorer `diffusion` measures. A model beside it is not used."""
    baseline: str | None = None
    """A CLIP to compare with, item by item."""
    precision: Precision = "float32"
    served_precision: str | None = None
    """Measure the CLIP in this precision too."""
    batch_size: int = 32
    max_bad_share: float = 0.0
    # Options that only some benchmarks have.
    images: Path | None = None
    classes: str | None = None
    templates: str | None = None
    order_seed: int = 0
    # Options of the diffusion score.
    draws: int = 32
    seed: int = 0
    score_error: ErrorOf = SCORE_ERROR

    def __post_init__(self) -> None:
        benchmark = resolve(self.benchmark)
        check_scorer(benchmark, self.scorer)
        for name in self.of_some:
            if self._is_given(name) and name not in BENCHMARKS[benchmark].options:
                raise ValueError(f"The option {name} cannot be used with {benchmark}.")
        if self.scorer == "diffusion":
            if not self.teacher:
                raise ValueError(
                    "The scorer diffusion needs the option teacher, which names a diffusion model."
                )
            if self.served_precision is not None:
                raise ValueError(
                    "The option served_precision applies only to the scorer clip, because teachers are not served."
                )
            return
        for name in ("draws", "seed", "score_error", "teacher"):
            if self._is_given(name):
                raise ValueError(f"The option {name} applies only to the scorer diffusion.")
        if not self.model:
            raise ValueError(
                "The scorer clip needs the option model. Name a model, or choose the scorer diffusion."
            )

    @property
    def of_some(self) -> dict[str, Any]:
        """The options that only some benchmarks have."""
        return {name: getattr(self, name) for name in get_args(Option)}

    def _is_given(self, name: str) -> bool:
        """Whether an option differs from its default, which a job's row and a command line contain too."""
        return bool(getattr(self, name) != getattr(type(self), name))
