"""A fine-tuning run from the first step to the last: resume, train, log, save, and write the delta."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from sds_clip.models.checkpoints.delta import clip_with, save_delta
from sds_clip.models.clip.lora import factors
from sds_clip.models.clip.precision import DTYPES, choose_precision
from sds_clip.models.clip.text_map import TextMap, fold, text_projection
from sds_clip.models.data.batches import Loader, batch_indices
from sds_clip.models.data.pairs import PairSet
from sds_clip.models.errors import NotFiniteError, TrainingError
from sds_clip.models.files import sha256_of
from sds_clip.models.mapper import Mapper
from sds_clip.models.run_files import CHECKPOINTS, CONFIG_FILE, LOG_FILE, checkpoints_in
from sds_clip.models.training.captions import LARGE_BYTES, encode_ahead
from sds_clip.models.training.checkpoint import Checkpoints
from sds_clip.models.training.config import FinetuneConfig, check_split
from sds_clip.models.training.distillation.condition import ConditionLoss
from sds_clip.models.training.distillation.noise_contrast import NoiseContrastLoss
from sds_clip.models.training.distillation.sds import SdsLoss
from sds_clip.models.training.distillation.teacher_loss import TeacherLoss
from sds_clip.models.training.influence import RunWarning, teacher_had_no_say
from sds_clip.models.training.interpolation import ALPHAS, interpolated
from sds_clip.models.training.latents import Latents
from sds_clip.models.training.log import Pace, RunLog, peak_memory_mib, writing
from sds_clip.models.training.objective import TEACHER_WEIGHT, Objective
from sds_clip.models.training.optimizer import make_optimizer
from sds_clip.models.training.parts import Parts, check_captions, describe, trained_parameters, with_negatives
from sds_clip.models.training.processes import Rank, anywhere, exchanged, start_alike
from sds_clip.models.training.report import write_run_report
from sds_clip.models.training.ridge import ridge_mapper
from sds_clip.models.training.score_targets import (
    BaseScores,
    LabelScores,
    ScoreTargets,
    ShuffledScores,
    TeacherScores,
)
from sds_clip.models.training.tracking import Outcome, Tracker, Tracking
from sds_clip.models.training.trainer import Trainer
from sds_clip.models.training.validation import validate
from sds_clip.models.training.watcher import ENCODING, FITTING, VALIDATING, Record, Watcher

logger = logging.getLogger(__name__)

OPERATIONAL = frozenset(
    {
        "log_every",
        "save_every",
        "keep_checkpoints",
        "workers",
        "caption_cache",
        "teacher_offload",
        "labels",
        "device",
        "val",
        "val_images",
        "max_bad_share",
        "data",
        "images",
    }
)
"""Options that do not change what is computed, so a run may be resumed with others. Data and labels go by their hash.

Another kind of device still rounds differently; results have the same bits only on the same kind.
"""


@dataclass(frozen=True)
class Result:
    """How a run ended. `delta` is None if it was stopped. Only the main process has warnings."""

    delta: Path | None
    steps_done: int
    metrics: Record
    warnings: tuple[RunWarning, ...] = ()


def train(
    config: FinetuneConfig,
    parts: Parts,
    out: Path,
    rank: Rank,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    control: Path | None = None,
    tracker: Tracker | None = None,
    min_save_interval_s: float = 0.0,
    max_bytes: int | None = None,
) -> Result:
    """Train, and write `out/report.html` and `out/delta`.

    If the watcher stops the run, save a checkpoint after the current step instead. Between steps nothing is saved: the
    start of the mapper and the validation begin again when the run is resumed. `control` is the folder of a run whose
    curves the report shows too. `tracker` is told of every record that is logged.

    A checkpoint that is due by `save_every` is skipped if the last one is younger than `min_save_interval_s`. The
    time at which a checkpoint is written has no effect on the weights. The kept checkpoints and the log take at
    most `max_bytes`.

    Raises:
        ConfigError: the configuration does not fit the base, the teacher, the data or the processes.
        TrainingError: `out` holds another run, another process trains in it or it cannot be written, or a loss is not
            finite.
        CheckpointError: a file cannot be written; the checkpoints before it are whole.
    """
    watcher = watcher or Watcher()
    asked, config = config, resolved(config, rank)
    run = _set_up(config, parts, rank)
    checkpoints = Checkpoints(
        out / CHECKPOINTS,
        _identity(config, parts),
        config.keep_checkpoints,
        watcher.before_saving,
        max_bytes,
        run.trainer.objective.state,
    )
    check_out(out, resume=resume)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    done = checkpoints.restore(run.parameters, run.trainer.optimizer)
    # Processes that resumed at different steps would wait for each other for ever.
    if len(set(exchanged(done))) > 1:
        raise TrainingError(
            f"{out} is not the same folder for every process; choose an --out on a disk that all "
            "processes share."
        )
    saver = _Saver(checkpoints, run, rank.is_main, done)
    log = RunLog(out / LOG_FILE, done) if rank.is_main else None
    if rank.is_main:
        watcher.on_restored(saver.save)
        # An unset weight stays unset, since the file may be used again with another objective, whose default differs.
        kept = config.model_copy(update={"sds_weight": asked.sds_weight})
        text = yaml.safe_dump(json.loads(kept.model_dump_json()), sort_keys=False)
        with writing(out / CONFIG_FILE):
            (out / CONFIG_FILE).write_text(text, encoding="utf-8")

    with (
        nullcontext() if log is None else closing(log),
        Tracking(None if log is None else tracker) as tracking,
    ):

        def tell(record: Record) -> None:
            if log is not None:
                log.write(record)
                tracking.log(record)
                watcher.on_record(record)

        # As early as possible, since a tracker may need a while to start.
        tracking.begin(json.loads(config.model_dump_json()), [] if log is None else log.records())
        try:
            _encode_captions(run, parts, done, rank, partial(_between, watcher, rank, ENCODING))
            _start_mapper(run, parts, done, partial(_between, watcher, rank, FITTING))
            _loop(run, parts, saver, rank, tell, watcher, min_save_interval_s)
            if run.trainer.text_map is not None:
                fold(run.trainer.network, run.trainer.text_map.matrix)
            network, metrics = _keep(run, parts, partial(_between, watcher, rank, VALIDATING))
        except _Stopped:
            return Result(None, saver.done, {})
        done = saver.done
        if metrics:
            tell({"step": done, **metrics})
        warning = None if log is None else _write(run, parts, network, out, metrics, log, control)
        tracking.outcome = Outcome.FINISHED
    return Result(out / "delta", done, metrics, () if warning is None else (warning,))


def _write(
    run: "_Run",
    parts: Parts,
    network: nn.Module,
    out: Path,
    metrics: Record,
    log: RunLog,
    control: Path | None,
) -> RunWarning | None:
    """Write what a finished run leaves, and return its warning if there is one."""
    warning = teacher_had_no_say(log.records())
    # Before the delta, by which a run is known to be finished. A control that has gone must not cost the run its delta.
    try:
        write_run_report(out, run.pairs, control=control, warning=warning)
    except Exception as error:
        logger.warning("The run's report was not written (%s: %s).", type(error).__name__, error)
    for unfinished in out.glob(".delta.*"):  # left by a run that was killed
        shutil.rmtree(unfinished)
    configuration = json.loads(run.trainer.config.model_dump_json())
    if run.trainer.config.sds_weight == "auto":
        metrics = {**metrics, TEACHER_WEIGHT: run.trainer.objective.teacher_weight}
    save_delta(
        out / "delta", parts.base, network, configuration=configuration, data=describe(parts),
        metrics=dict(metrics),
        factors=factors(network) if run.trainer.config.trainable == "lora" else None,
    )  # fmt: skip
    return warning


def check_out(out: Path, *, resume: bool) -> None:
    """Raise TrainingError if a run cannot start, or resume, in a folder. Nothing is written."""
    if (out / "delta").exists():
        raise TrainingError(f"{out} contains a finished run; use another --out.")
    if checkpoints_in(out / CHECKPOINTS) and not resume:
        raise TrainingError(
            f"{out} contains an unfinished run; continue it with --resume, or use another --out."
        )


class _Stopped(Exception):
    """The watcher stops the run."""


@dataclass(frozen=True, eq=False)
class _Run:
    trainer: Trainer
    pairs: PairSet

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        mapper = {f"mapper.{name}": value for name, value in self.trainer.mapper.items()}
        return {f"student.{name}": value for name, value in self.trainer.student.items()} | mapper


class _Saver:
    """Counts the steps, and saves the state after the last whole one, in whichever thread."""

    def __init__(self, checkpoints: Checkpoints, run: _Run, is_main: bool, done: int) -> None:
        self.done = self.saved = done
        self.saved_at = time.monotonic()
        self.whole = threading.Lock()
        """Held while a step changes the parameters and is counted and logged."""
        self._checkpoints, self._run, self._is_main = checkpoints, run, is_main

    def save(self) -> int:
        """Save the state unless that is done. Return the number of steps."""
        with self.whole:
            if self._is_main and self.saved != self.done:
                self._checkpoints.save(self.done, self._run.parameters, self._run.trainer.optimizer)
                self.saved, self.saved_at = self.done, time.monotonic()
            return self.done


def _between(watcher: Watcher, rank: Rank, stage: str, done: int, total: int) -> None:
    if rank.is_main:
        watcher.on_batch(stage, done, total)
    # Agreed between the processes, like a stop after a step.
    if anywhere(watcher.should_stop(), rank.device):
        raise _Stopped


def _encode_captions(
    run: _Run, parts: Parts, done: int, rank: Rank, between: Callable[[int, int], None]
) -> None:
    objective = run.trainer.objective
    if parts.teacher is not None and parts.teacher.text_bytes >= LARGE_BYTES:
        encode_ahead(objective.config, parts.teacher, run.pairs, range(done, objective.steps), rank, between)


def _start_mapper(run: _Run, parts: Parts, done: int, between: Callable[[int, int], None]) -> None:
    config, loss = run.trainer.config, run.trainer.objective.teacher_loss
    if done == 0 and loss is not None and config.uses_sds and config.mapper_start == "ridge":
        fitted = ridge_mapper(config, parts.base, loss.teacher, run.pairs, between)
        loss.mapper.load_state_dict(fitted.state_dict())
    start_alike(run.trainer.mapper.values())


def _set_up(config: FinetuneConfig, parts: Parts, rank: Rank) -> _Run:
    base = parts.base
    pairs = with_negatives(config, parts.pairs)
    check_captions(config, pairs)
    check_split(config.objective, config, rank.world_size)
    batch_indices(len(pairs), config.batch_size, config.seed, 0)  # refuses a batch larger than the data
    steps = config.steps_over(len(pairs))
    network = deepcopy(base.network)
    student = trained_parameters(network, config)
    text_map = None
    if config.trainable == "text-map":
        text_projection(network)  # refuses a text tower that it could not be folded into
        text_map = TextMap(base.embed_dim).to(rank.device)
        student = dict(text_map.named_parameters(prefix="text_map"))
    targets = None
    if config.objective == "score":
        targets = parts.targets or _score_targets(config, parts, pairs)
    teacher_loss = _teacher_loss(config, parts, pairs, steps, rank)
    objective = Objective(config, steps, teacher_loss, targets)
    trainer = Trainer(
        network,
        base.tokenizer,
        objective,
        student,
        make_optimizer(network, student, objective.mapper, config),
        device=rank.device,
        dtype=DTYPES[config.precision],
        text_map=text_map,
        base=base.network if config.uses_base else None,
        teacher=parts.teacher,
        world_size=rank.world_size,
    )
    return _Run(trainer, pairs)


def _score_targets(config: FinetuneConfig, parts: Parts, pairs: PairSet) -> ScoreTargets:
    if config.score_by == "base":
        return BaseScores(config, parts.base, pairs)
    if config.score_by == "labels":
        return LabelScores(config, pairs, parts.base.device)
    assert parts.teacher is not None
    kind = ShuffledScores if config.score_by == "shuffled" else TeacherScores
    return kind(config, parts.teacher, Latents(parts.base, parts.teacher, pairs))


def _teacher_loss(
    config: FinetuneConfig, parts: Parts, pairs: PairSet, steps: int, rank: Rank
) -> TeacherLoss | None:
    """The loss by which the teacher reaches the image features, for objectives that have one."""
    base, teacher = parts.base, parts.teacher
    if config.objective in ("clip", "score"):
        return None
    assert teacher is not None

    def mapper(shape: tuple[int, ...]) -> Mapper:
        return Mapper(base.embed_dim, shape, input=config.mapper_input, seed=config.seed).to(rank.device)

    if config.objective == "sds-clip":
        return SdsLoss(config, steps, teacher, mapper(teacher.latent_shape))
    tokens = mapper((config.condition_tokens, teacher.caption_width))
    kind = NoiseContrastLoss if config.objective == "noise-contrast" else ConditionLoss
    return kind(config, steps, teacher, tokens, Latents(base, teacher, pairs))


def _loop(
    run: _Run, parts: Parts, saver: _Saver, rank: Rank, tell: Callable[[Record], None], watcher: Watcher,
    min_save_interval_s: float,
) -> None:  # fmt: skip
    """Take the remaining steps. Raises _Stopped, after a checkpoint, if the watcher stops the run before the last."""
    config, steps, pace, since = run.trainer.config, run.trainer.objective.steps, Pace(), saver.done
    loader = Loader(
        run.pairs, parts.base.preprocess, batch_size=config.batch_size, seed=config.seed, first_step=saver.done,
        last_step=steps, rank=rank.index, world_size=rank.world_size, workers=config.workers,
        known=run.trainer.knows_image,
    )  # fmt: skip
    with closing(loader):
        for batch in loader:
            done = saver.done + 1
            last = done == steps
            logs = last or done % config.log_every == 0
            try:
                values, norms = run.trainer.gradients(batch, with_gap=logs)
            except NotFiniteError as error:
                tell({"step": done, "steps": steps, "non_finite": error.count})
                raise
            with saver.whole:
                run.trainer.update(norms)
                saver.done = done
                if logs:
                    rate = run.trainer.optimizer.param_groups[0]["lr"]
                    waited_s = loader.wait_s + run.trainer.embedding_s
                    speed = pace.since((done - since) * config.batch_size, waited_s)
                    since = done
                    memory = {"peak_memory_mib": peak_memory_mib(rank.device), "non_finite": 0}
                    tell({"step": done, "steps": steps, **values, "lr": rate, **speed, **memory})
            if rank.is_main:
                watcher.on_step(done, steps)
            # Agreed between the processes: one that stopped alone would leave the others waiting for its
            # gradients.
            stopping = anywhere(watcher.should_stop(), rank.device)
            is_due = (
                done % config.save_every == 0 and time.monotonic() - saver.saved_at >= min_save_interval_s
            )
            if last or stopping or is_due:
                saver.save()
            if stopping and not last:
                raise _Stopped


def resolved(config: FinetuneConfig, rank: Rank) -> FinetuneConfig:
    """Replace what a default means here by its value, so that resuming elsewhere or later does not change it."""
    names = ("precision", "teacher_precision")
    chosen = {name: choose_precision(getattr(config, name), rank.device) for name in names}
    return config.model_copy(update={**chosen, "sds_weight": config.teacher_weight})


def _keep(run: _Run, parts: Parts, between: Callable[[int, int], None]) -> tuple[nn.Module, Record]:
    """Return the network that the run leaves, and what it measured on the validation pairs."""
    config, pairs = run.trainer.config, parts.validation
    shares = ALPHAS if config.alpha == "auto" else (config.alpha,)
    at = partial(interpolated, run.trainer.network, parts.base.network)
    if pairs is None:
        return at(shares[0]), {}
    before = validate(parts.base, pairs, config.batch_size, between)
    found = {
        alpha: validate(clip_with(parts.base, at(alpha)), pairs, config.batch_size, between)
        for alpha in shares
    }
    best = min(found, key=lambda alpha: found[alpha]["validation_clip"])
    chosen = {"validation_alpha": best} if config.alpha == "auto" else {}
    return at(best), {f"base_{name}": value for name, value in before.items()} | found[best] | chosen


def _identity(config: FinetuneConfig, parts: Parts) -> dict[str, Any]:
    options = json.loads(config.model_dump_json(exclude=set(OPERATIONAL)))
    labels = {} if config.labels is None else {"labels_hash": sha256_of(config.labels)}
    return {**options, **describe(parts), **labels}
