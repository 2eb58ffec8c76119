"""Fingerprints of stored results: a hash of everything they depend on except the program."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.parts import Parts, describe, with_negatives
from sds_clip.models.training.run import OPERATIONAL

DIGITS = 12
# Options that the teacher's scores depend on; runs with the same ones share scores.
SCORING = (
    "negatives", "negatives_count", "negatives_seed", "score_candidates", "score_draws", "score_error", "score_t_min",
    "score_t_max", "teacher_precision", "guidance",
)  # fmt: skip

PLACES = frozenset({*OPERATIONAL, "base", "teacher", "data"})
"""Options that say where something is; the weights and the data themselves are in a fingerprint."""


def of_run(config: FinetuneConfig, parts: Parts) -> str:
    """A run's fingerprint: its configuration, base, teacher, pairs and negatives, wherever they are stored."""
    return _hash(config.model_dump(mode="json", exclude=set(PLACES)), config, parts)


def of_scores(config: FinetuneConfig, parts: Parts) -> str:
    """Fingerprint of the teacher's scores of all pairs and their negatives."""
    return _hash({name: getattr(config, name) for name in SCORING}, config, parts)


def _hash(options: dict[str, Any], config: FinetuneConfig, parts: Parts) -> str:
    # Includes the negatives themselves, since the rules that make them may change without an option.
    pairs = with_negatives(config, parts.pairs)
    negatives = [pairs.sample(index).negatives for index in range(len(pairs))]
    content = json.dumps([options, describe(parts), negatives], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:DIGITS]
