"""Large text encoders see the captions of a run before its first step, and leave the memory."""

from collections.abc import Callable
from contextlib import nullcontext

from sds_clip.models.data.batches import batch_indices, steps_per_epoch, texts_of
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.teacher.teacher import CAPTIONS_AT_ONCE, UNCONDITIONAL, Teacher
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.part import sub_batch
from sds_clip.models.training.processes import Rank
from sds_clip.models.training.trainer import plain_attention

LARGE_BYTES = 2**30
"""Stable Diffusion 1.x and 2.x have less. A T5 of 4.7 billion weights has 9 GB in bfloat16."""


def encode_ahead(
    config: FinetuneConfig,
    teacher: Teacher,
    pairs: PairSet,
    steps: range,
    rank: Rank,
    between: Callable[[int, int], None],
) -> None:
    """Put the captions that the teacher needs in these steps into its cache, and unload its text encoders.

    Without a cache on disk, or with one that is too small for all of them, they stay. The processes share the work, and
    each calls `between(done, total)` as often as the others.
    """
    uses_captions = config.uses_sds or config.objective == "score"
    cache = teacher.caption_cache
    if uses_captions and cache is None:
        return
    needed = list(dict.fromkeys(_needed(config, pairs, steps, rank.world_size))) if uses_captions else []
    together = CAPTIONS_AT_ONCE * rank.world_size
    # As in a step, where those of L_SDS alone are encoded outside of it, so that every bit is the same.
    with nullcontext() if config.uses_sds else plain_attention(teacher.device, teacher):
        for start in range(0, len(needed), together):
            own = start + CAPTIONS_AT_ONCE * rank.index
            encoded = teacher.encode_captions(needed[own : own + CAPTIONS_AT_ONCE])
            if len(encoded) and cache is not None and not cache.holds(len(needed) * encoded[0].nbytes):
                return  # Those of the first steps would be dropped before these are taken.
            between(min(start + together, len(needed)), len(needed))
    teacher.unload_text_encoders()


def _needed(config: FinetuneConfig, pairs: PairSet, steps: range, world_size: int) -> list[str]:
    found = [UNCONDITIONAL]
    size = config.batch_size // world_size
    part = [
        size * process + place
        for process in range(world_size)
        for place in sub_batch(size, config.teacher_batch_size // world_size)
    ]
    for step in steps:
        epoch = step // steps_per_epoch(len(pairs), config.batch_size)
        indices = batch_indices(len(pairs), config.batch_size, config.seed, step)[part]
        captions, negatives, _ = texts_of(pairs, indices, config.seed, epoch)
        found += captions
        if config.objective == "score":
            found += [text for each in negatives for text in each[: config.negatives_count]]
    return found
