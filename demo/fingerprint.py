"""What a kept result is named by: a hash of all that it depends on, but for the program itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from models.training.config import FinetuneConfig
from models.training.parts import Parts, describe, with_negatives

DIGITS = 12
SCORING = (
    "negatives", "negatives_count", "negatives_seed", "score_draws", "score_error", "score_t_min",
    "score_t_max", "teacher_precision",
)  # fmt: skip
"""The options that the teacher's scores depend on; runs that share them share the scores."""


def of_run(config: FinetuneConfig, parts: Parts) -> str:
    """Of a run: its whole configuration, base, teacher, pairs and negatives."""
    return _hash(config.model_dump(mode="json"), config, parts)


def of_scores(config: FinetuneConfig, parts: Parts) -> str:
    """Of the teacher's scores of all pairs and their negatives."""
    return _hash({name: getattr(config, name) for name in SCORING}, config, parts)


def _hash(options: dict[str, Any], config: FinetuneConfig, parts: Parts) -> str:
    # The negatives themselves too: the rules that make them may change while no option does.
    pairs = with_negatives(config, parts.pairs)
    negatives = [pairs.sample(index).negatives for index in range(len(pairs))]
    content = json.dumps([options, describe(parts), negatives], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
