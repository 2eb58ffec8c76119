"""A fine-tuning job, from its data sets to a published version and the alias that may take it."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from app.crash import reach
from app.jobs.limits import steps_of
from app.registry.publish import Published, lies_among, publish
from app.registry.store_source import as_version as as_reference
from app.store.errors import AliasMoved, UnknownRecord, UnusableRecord, VersionGone
from app.store.records import Level, Move, NewVersion
from app.store.specs import Evaluation, FinetuneSpec
from models.checkpoints import load_clip
from models.clip import Clip
from models.delta import apply_delta
from models.evaluation.results import Results
from models.references import CheckpointError, parse
from models.training.config import FinetuneConfig
from models.training.log import Record, read_log
from models.training.parts import Parts, Place, find_place, load_parts
from models.training.run import Result, train
from models.training.validation import validate
from worker.config import WorkerConfig
from worker.context import JobContext
from worker.data import content_of, pairs_place
from worker.errors import JobFailed
from worker.measuring import measure, read_data, summary
from worker.promotion import Measured, Verdict, judge
from worker.references import check_version, loadable, of_version

logger = logging.getLogger(__name__)


def finetune(context: JobContext) -> None:
    """Train, publish, measure, decide, and end the job. Raises what `worker.job_process.Runner` may."""
    job = FinetuneSpec.read(context.job.config)
    context.stage("loading")
    config = resolve(context, job)
    training = context.store.datasets.get(job.training_data)
    context.config.limits.check(
        config, steps_of(job, training)
    )  # epochs, of data that were not checked before
    place = find_place(config.device)
    parts = load_parts(
        config, place, _say(context), confined=True, val_max_bad_share=_val_max_bad_share(context, job)
    )
    check_version(parts.base, job.base, param="base")
    result = _train(context, job, config, parts, place)
    assert result.delta is not None
    for warning in result.warnings:
        data = {"code": warning.code, **warning.figures}
        context.reporter.event(warning.message, level=Level.WARNING, data=data)
    tuned = apply_delta(parts.base, result.delta)
    if tuned.version == parts.base.version:
        raise JobFailed("nothing_learned", "Training changed no weight; train longer or with a higher lr.")
    measured = _evaluate(context, job, tuned, {name: float(value) for name, value in result.metrics.items()})
    _finish(context, job, config, parts, result, measured)
    context.folder.drop_earlier()
    context.folder.drop()


def resolve(context: JobContext, job: FinetuneSpec) -> FinetuneConfig:
    """The run's configuration, with the paths of its data sets and its base as something that can be loaded."""
    store, config = context.store, context.config
    links = context.folder.links
    data = content_of(store, config, job.training_data, param="training_data")
    training = pairs_place(data, links / "training")
    places: dict[str, Any] = {"data": training.data, "images": training.images}
    # Of a job that was accepted before there was a limit.
    places["keep_checkpoints"] = min(job.hyperparameters.keep_checkpoints, config.limits.max_keep_checkpoints)
    if job.validation_data is not None:
        held_out = content_of(store, config, job.validation_data, param="validation_data")
        validation = pairs_place(held_out, links / "validation")
        # Not `None`: images of the training data would be meant.
        images = validation.images or validation.data.parent
        places |= {"val": validation.data, "val_images": images}
    base = loadable(store, config, job.base, param="base")
    return job.config(**places, base=base, device=config.device)


def _val_max_bad_share(context: JobContext, job: FinetuneSpec) -> float:
    """What the check of the validation pairs allowed: a set that was taken in does not fail its job."""
    held_out = job.validation_data
    return 0.0 if held_out is None else context.store.datasets.get(held_out).max_bad_share


def figures(record: Record) -> dict[str, float]:
    """What a line of the log says of its step."""
    return {name: float(value) for name, value in record.items() if name not in ("step", "steps")}


class _Progress:
    """Follows a training: steps and figures to the store, the supervisor's ticks, the disk."""

    def __init__(self, context: JobContext, start: int) -> None:
        self._context = context
        self._start = start
        self._done = start
        self._steps: int | None = None
        self._began: float | None = None
        self._has_own_checkpoint = False

    def record(self, record: Record) -> None:
        """Called with every line of the run's log."""
        self._context.reporter.metrics(int(record["step"]), figures(record))

    def stepped(self, _done: int, steps: int) -> None:
        """Called after every step, before `step_done`."""
        self._steps = steps

    def step_done(self) -> bool:
        """Called after every step; whether to stop at it."""
        reach("mid-step")
        self._done += 1
        self._context.advance(self._done, self._steps, self._estimate())
        if not self._has_own_checkpoint and self._context.folder.has_checkpoint_after(self._start):
            self._has_own_checkpoint = True
            self._context.folder.drop_earlier()
        return self._context.should_stop()

    def _estimate(self) -> float | None:
        """When the last step will be done, by the pace since the first one here."""
        now = time.time()
        if self._began is None:
            self._began = now
            return None
        if self._steps is None:
            return None
        taken = self._done - self._start - 1
        return now + (now - self._began) / taken * (self._steps - self._done)


def _train(
    context: JobContext, job: FinetuneSpec, config: FinetuneConfig, parts: Parts, place: Place
) -> Result:
    # All is read already; what is written down of data and base are their ids, not this machine's paths.
    told = job.recorded(config)
    start = context.folder.take_over()
    _tell_again(context, start)
    if start:
        context.reporter.event(f"Goes on after step {start}.", data={"step": start})
    elif context.job.fence > 1:
        context.reporter.event("There is no whole checkpoint: training starts from step 0.", data={"step": 0})
    context.check_disk()
    context.stage("training")
    context.count("training", start)
    progress = _Progress(context, start)
    result = train(
        told,
        parts,
        context.folder.run,
        place,
        resume=True,
        progress=progress.record,
        stepped=progress.stepped,
        should_stop=progress.step_done,
        half_saved=lambda: reach("mid-checkpoint"),
        between=context.check,
        before_saving=context.check_disk,
        min_save_interval_s=context.config.min_save_interval_s,
        max_bytes=context.config.max_job_bytes,
    )
    if result.delta is None:
        context.stop()
    return result


def _tell_again(context: JobContext, start: int) -> None:
    """Send the points before a checkpoint that the attempt which wrote it could not send any more."""
    latest = context.store.journal.latest_metrics(context.job.id)
    for record in read_log(context.folder.log):
        if (-1 if latest is None else latest.step) < record["step"] <= start:
            context.reporter.metrics(int(record["step"]), figures(record))


def _evaluate(
    context: JobContext, job: FinetuneSpec, clip: Clip, validation: Mapping[str, float]
) -> Measured:
    """A model on all that the job names."""
    results: dict[str, Results] = {}
    for evaluation in job.evaluate:
        context.stage("evaluating")
        results[name_of(evaluation)] = _measure(context, evaluation, clip)
    return Measured(clip.version, results, validation)


def name_of(evaluation: Evaluation) -> str:
    """What an evaluation's results are called."""
    return f"{evaluation.benchmark} ({evaluation.data})"


def _measure(context: JobContext, evaluation: Evaluation, clip: Clip) -> Results:
    content = content_of(context.store, context.config, evaluation.data, param="evaluate")
    work = context.folder.work
    benchmark = read_data(evaluation.benchmark, content, work)

    def say(what: str, done: int, total: int) -> None:
        context.check()
        context.count(f"{evaluation.data} {what}", done)

    return measure(
        context,
        benchmark,
        clip,
        say=say,
        max_bad_share=context.store.datasets.get(evaluation.data).max_bad_share,
    )


def _finish(
    context: JobContext,
    job: FinetuneSpec,
    config: FinetuneConfig,
    parts: Parts,
    result: Result,
    measured: Measured,
) -> None:
    """End the job with its version: anew where the alias was moved, or the base or the files deleted, meanwhile."""
    while True:
        try:
            _end(context, job, config, parts, result, measured)
            return
        except (AliasMoved, UnusableRecord, VersionGone) as error:
            context.reporter.event(str(error))


def _end(
    context: JobContext,
    job: FinetuneSpec,
    config: FinetuneConfig,
    parts: Parts,
    result: Result,
    measured: Measured,
) -> None:
    verdict, move = _decide(context, job, config, parts, measured)
    outcome = {
        "steps": result.steps_done,
        "metrics": dict(measured.validation),
        "warnings": [asdict(warning) for warning in result.warnings],
        "evaluations": {name: summary(results) for name, results in measured.results.items()},
        "promotion": None
        if job.promote == "never"
        else {
            "alias": job.alias,
            "promoted": move is not None,
            "why": verdict.why,
            **verdict.figures,
        },
    }
    published = _publish(context, parts.base, result)
    version = as_version(context.config, parts.base, published, measured)
    # A version's base is registered before it; most are an operator's own, and known by reference alone.
    context.store.versions.register(as_reference(parts.base))
    context.succeed(version=version, result=outcome, promotion=move)


def _publish(context: JobContext, base: Clip, result: Result) -> Published:
    assert result.delta is not None
    context.stage("publishing")
    published = publish(
        result.delta,
        context.config.versions_dir,
        job=context.job.id,
        fence=context.job.fence,
        base=base,
        log=context.folder.log,
    )
    reach("after-rename")
    return published


def as_version(config: WorkerConfig, base: Clip, published: Published, measured: Measured) -> NewVersion:
    """The row of what was published; its folder is named from the data folder, wherever that is mounted."""
    evaluations = {name: summary(results) for name, results in measured.results.items()}
    published_base = lies_among(
        parse(base.reference), config.versions_dir
    )  # its reference is this server's path
    return NewVersion(
        id=published.version,
        folder=published.folder.relative_to(config.data_dir).as_posix(),
        description={**published.description, "evaluations": evaluations},
        size_bytes=published.size_bytes,
        base=base.version if published_base else base.reference,
        base_version=base.version,
    )


def _decide(
    context: JobContext, job: FinetuneSpec, config: FinetuneConfig, parts: Parts, measured: Measured
) -> tuple[Verdict, Move | None]:
    """Whether to promote, and the alias's move, which holds only while the alias is as it was looked at."""
    if job.promote == "never":
        return Verdict(False, "Promoting was not asked for.", {}), None
    context.stage("promoting")
    holder, generation = _holder(context, job.alias)
    if job.promote == "always":
        verdict = Verdict(True, "Promoting was asked for, whatever the figures.", {"compared_with": None})
    else:
        clip = parts.base if holder in (None, parts.base.version) else _load(context, job.alias, str(holder))
        verdict = judge(
            _measured_holder(context, job, config, parts, clip, measured), measured, job.thresholds
        )
    context.reporter.event(verdict.why, data={"alias": job.alias, "promoted": verdict.better})
    if not verdict.better:
        return verdict, None
    move = Move(
        alias=job.alias,
        who=context.job.owner or "job",
        why=f"job {context.job.id}: {verdict.why}",
        expected_generation=generation,
        metrics=verdict.figures,
    )
    return verdict, move


def _holder(context: JobContext, alias: str) -> tuple[str | None, int]:
    """The version that an alias points at, and its generation; none and 0 where there is no such alias."""
    try:
        found = context.store.aliases.get(alias)
    except UnknownRecord:
        return None, 0
    return found.version, found.generation


def _load(context: JobContext, alias: str, version: str) -> Clip:
    """What an alias points at. Raises AliasMoved where that was deleted after the alias had been moved."""
    try:
        reference = of_version(context.store, context.config, version, param="alias")
        clip = load_clip(reference, device=context.config.device, precision="float32")
        check_version(clip, version, param="alias")
        return clip
    except (JobFailed, CheckpointError) as error:
        if _holder(context, alias)[0] == version:
            raise
        raise AliasMoved(f"The alias {alias} was moved while its version was loaded.") from error


def _measured_holder(
    context: JobContext,
    job: FinetuneSpec,
    config: FinetuneConfig,
    parts: Parts,
    clip: Clip,
    measured: Measured,
) -> Measured:
    """The same figures of the version that is in service."""
    if clip.version == measured.version:
        return measured
    validation: Mapping[str, float] = {}
    if parts.validation is not None:
        validation = validate(clip, parts.validation, config.batch_size, context.check)
    return replace(_evaluate(context, job, clip, validation), version=clip.version)


def _say(context: JobContext) -> Any:
    def say(message: str) -> None:
        context.check()
        context.reporter.event(message.replace(str(Path(context.config.data_dir)) + "/", ""))

    return say
