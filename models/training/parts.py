"""The parts of a run: the base, the teacher and the data, loaded and checked against each other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Float
from torch import nn

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.choices import NegativeKind
from sds_clip.models.clip.encode import encode_texts
from sds_clip.models.clip.lora import attach
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.sharing import share
from sds_clip.models.clip.student import chosen_parameters, summary, trainable_parameters
from sds_clip.models.data.blind_report import blind_report
from sds_clip.models.data.check import check_pairs
from sds_clip.models.data.negatives import KINDS, balanced, hard_negatives
from sds_clip.models.data.open import open_pairs
from sds_clip.models.data.pairs import PairSet, Sample, StoredPairs
from sds_clip.models.errors import ConfigError
from sds_clip.models.machine import usable_cores
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import Teacher
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.processes import Rank, exchanged
from sds_clip.models.training.score_targets import Targets

Tell = Callable[[str], None]

_SAID_EVERY = 10_000  # samples between two messages


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything that a run reads. Training changes none of it."""

    base: Clip
    pairs: PairSet
    teacher: Teacher | None = None
    validation: PairSet | None = None
    targets: Targets | None = None
    """The teacher's scores, if they are known already; without them, the objective `score` computes them."""


def load_parts(
    config: FinetuneConfig,
    rank: Rank,
    say: Tell = lambda message: None,
    *,
    confined: bool = False,
    val_max_bad_share: float = 0.0,
    max_cache_bytes: int | None = None,
) -> Parts:
    """Load and check everything that a configuration names; `confined` as in `sds_clip.models.data.open`.

    At most the larger of `val_max_bad_share` and the configuration's share of the validation pairs may be left out. The
    caption cache keeps `max_cache_bytes`, or all.

    Raises CheckpointError, TeacherError, DataError or ConfigError for an input that cannot be used.
    """
    opened = _open(config, config.data, config.images, confined)
    held_out = _open(config, config.val, config.val_images or config.images, confined) if config.val else None
    say(f"loading the base {config.base}")
    base = load_clip(config.base, device=str(rank.device), precision="float32")
    say(f"trained: {_trained(base.network, config)}")
    teacher = None
    if config.teacher and config.uses_teacher:
        say(f"loading the teacher {config.teacher}")
        teacher = load_teacher(
            config.teacher,
            device=str(rank.device),
            precision=config.teacher_precision,
            guidance=config.guidance,
            vae=config.needs_vae,
            caption_cache=config.caption_cache,
            max_cache_bytes=max_cache_bytes,
            offload=config.teacher_offload,
        )
        if config.activation_checkpointing:
            teacher.enable_activation_checkpointing()
    # The data comes last, since it takes longest: a misspelt name above is reported at once.
    say("checking the data")
    pairs = _checked(config, config.data, opened, config.max_bad_share, rank, say)
    _tell_of_negatives(config, base, pairs, rank, say)
    validation = None
    if config.val and held_out:
        allowed = max(config.max_bad_share, val_max_bad_share)
        validation = _checked(config, config.val, held_out, allowed, rank, say)
    return Parts(base, pairs, teacher, validation)


def introduce(config: FinetuneConfig, parts: Parts, rank: Rank, say: Tell) -> None:
    """Say what a run trains, and how many of its hard negatives text alone tells, as `load_parts` does."""
    say(f"trained: {_trained(parts.base.network, config)}")
    _tell_of_negatives(config, parts.base, parts.pairs, rank, say)


def _tell_of_negatives(config: FinetuneConfig, base: Clip, pairs: PairSet, rank: Rank, say: Tell) -> None:
    if config.negatives != "none" and config.score_candidates == "all" and rank.is_main:
        for line in blind_report(with_negatives(config, pairs), partial(_embeddings, base)):
            say(line)


def trained_parameters(network: nn.Module, config: FinetuneConfig) -> dict[str, nn.Parameter]:
    """Freeze a network in place, except for what a configuration trains of it. The factors of LoRA are added to it."""
    parameters = trainable_parameters(network, config.trainable)
    if config.trainable != "lora":
        return parameters
    return attach(
        network, targets=config.lora_targets, rank=config.lora_rank, scale=config.lora_scale, seed=config.seed
    )


def with_negatives(config: FinetuneConfig, pairs: PairSet) -> PairSet:
    """Return the pairs with the hard negatives that a configuration asks for.

    Raises:
        ConfigError: not one sample has any; or one has more than are used, and the right one may be among the others.
    """
    if config.negatives == "none":
        return pairs
    kinds: Sequence[NegativeKind] = ()
    if config.makes_negatives:
        kinds = [kind for kind in KINDS if config.negatives in (kind, "made")]
    chosen = pairs
    if kinds or config.balances_negatives:
        chosen = WithNegatives(
            pairs,
            config.negatives_count,
            config.negatives_seed,
            kinds=kinds,
            balance=config.balances_negatives,
        )
    samples = (chosen.sample(index) for index in range(len(chosen)))
    if config.score_candidates == "negatives":
        most = max((len(texts) for sample in samples for texts in sample.negatives), default=0)
        if most > config.negatives_count:
            raise ConfigError(
                f"{config.data} has images with {most} candidates, and negatives_count is {config.negatives_count}. "
                f"With score_candidates: negatives, the right caption may be any of them. Use negatives_count: {most}."
            )
        if most:
            return chosen
    elif any(any(sample.negatives) for sample in samples):
        return chosen
    if kinds or config.balances_negatives:
        raise ConfigError(
            f"No caption of {config.data} has a hard negative by negatives: {config.negatives}. Use another kind, or "
            "negatives_balance: false, which keeps those that text alone tells."
        )
    raise ConfigError(
        f"{config.data} has no hard negative captions (a neg_caption column, as NegCLIP's tables have it); "
        "use negatives: swap, or add them."
    )


def check_captions(config: FinetuneConfig, pairs: PairSet) -> None:
    """Raise ConfigError if two captions of an image are to be aligned, and no image has two different ones."""
    counts = (len(set(pairs.sample(index).captions)) for index in range(len(pairs)))
    if config.paraphrase_weight and not any(count > 1 for count in counts):
        raise ConfigError(
            f"No image of {config.data} has two different captions, which paraphrase_weight aligns. Leave it out."
        )


class WithNegatives(PairSet):
    """Pairs with hard negatives that are made of their captions, or without `kinds` with those of their own.

    With `balance`, negatives that a reader tells by the words alone are left out.
    """

    def __init__(
        self,
        pairs: PairSet,
        count: int,
        seed: int,
        *,
        kinds: Sequence[NegativeKind] = ("swap",),
        balance: bool = False,
    ) -> None:
        self._pairs, self._count, self._seed, self._kinds = pairs, count, seed, kinds
        self._language = pairs.language if balance else None

    @property
    def content_hash(self) -> str:
        """The hash of the pairs, since negatives follow from them and the configuration."""
        return self._pairs.content_hash

    def __len__(self) -> int:
        return len(self._pairs)

    def sample(self, index: int) -> Sample:
        sample = self._pairs.sample(index)
        negatives = tuple(
            self._made(caption, index)
            if self._kinds
            else balanced(caption, own, self._language, seed=self._seed, index=index)
            for caption, own in zip(sample.captions, sample.negatives, strict=True)
        )
        return replace(sample, negatives=negatives)

    def _made(self, caption: str, index: int) -> tuple[str, ...]:
        return hard_negatives(
            caption,
            self._count,
            kinds=self._kinds,
            language=self._language,
            seed=self._seed,
            index=index,
        )

    def image(self, index: int) -> PIL.Image.Image:
        return self._pairs.image(index)


def describe(parts: Parts) -> dict[str, Any]:
    """Return what a run's result depends on besides its configuration."""
    return {
        "base_version": parts.base.version,
        "teacher_version": parts.teacher.version if parts.teacher else None,
        "vae_version": parts.teacher.vae_version if parts.teacher else None,
        "data_hash": parts.pairs.content_hash,
        "data_size": len(parts.pairs),
    }


def _embeddings(base: Clip, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
    return encode_texts(base, texts).double().numpy()


def _trained(network: nn.Module, config: FinetuneConfig) -> str:
    if config.trainable == "text-map":
        return "a map of text embeddings"
    if config.trainable == "lora":
        network = share(network)
        return summary(network, trained_parameters(network, config))
    return summary(network, chosen_parameters(network, config.trainable))


def _open(config: FinetuneConfig, path: Path, images: Path | None, confined: bool) -> StoredPairs:
    return open_pairs(
        path,
        images=images,
        format=config.data_format,
        image_key=config.image_key,
        caption_key=config.caption_key,
        separator=config.separator,
        confined=confined,
    )


def _checked(
    config: FinetuneConfig, path: Path, opened: StoredPairs, max_bad_share: float, rank: Rank, say: Tell
) -> PairSet:
    """Return the usable samples, and report those that are left out."""

    def show(done: int, total: int) -> None:
        if done % _SAID_EVERY == 0:
            say(f"checked {done} of {total} samples")

    checked = check_pairs(
        opened,
        max_bad_share=max_bad_share,
        workers=max(config.workers, usable_cores() // rank.world_size),  # nothing else is computed yet
        progress=show,
        rank=rank.index,
        world_size=rank.world_size,
        exchange=exchanged if rank.world_size > 1 else None,
    )
    if checked.report.bad_share:
        say(f"{path}: unusable samples are left out: {checked.report}")
    return checked.pairs
