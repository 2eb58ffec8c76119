"""A fine-tuning job, from its data sets to a published version and possibly a promoted alias."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.errors import AliasMoved, UnknownRecord, UnusableRecord, VersionGone
from app.jobs.limits import steps_of
from app.registry.publish import Published, lies_among, publish
from app.registry.store_source import as_version as as_reference
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
from worker.promotion import CandidateScores, Verdict, judge
from worker.references import check_version, loadable, of_version


def finetune(context: JobContext) -> None:
    """Train, publish, measure, decide, and end the job. Raises what `worker.job_process.Runner` may."""
    job = FinetuneSpec.read(context.job.config)
    context.stage("loading")
    config = resolve(context, job)
    training = context.store.datasets.get(job.training_data)
    context.config.limits.check(
        config, steps_of(job, training)
    )  # the number of steps of `epochs` is known only now that the data are checked
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
    scores = _evaluate(context, job, tuned, {name: float(value) for name, value in result.metrics.items()})
    _Conclusion(context, job, config, parts, result, scores).end_job()
    context.folder.drop_earlier()
    context.folder.drop()


def resolve(context: JobContext, job: FinetuneSpec) -> FinetuneConfig:
    """Return the run's configuration, with paths for its data sets and a loadable reference for its base."""
    store, config = context.store, context.config
    links = context.folder.links
    data = content_of(store, config, job.training_data, param="training_data")
    training = pairs_place(data, links / "training")
    places: dict[str, Any] = {"data": training.data, "images": training.images}
    # A job accepted before this limit existed may ask for more.
    places["keep_checkpoints"] = min(job.hyperparameters.keep_checkpoints, config.limits.max_keep_checkpoints)
    if job.validation_data is not None:
        held_out = content_of(store, config, job.validation_data, param="validation_data")
        validation = pairs_place(held_out, links / "validation")
        # None would mean the images of the training data.
        images = validation.images or validation.data.parent
        places |= {"val": validation.data, "val_images": images}
    base = loadable(store, config, job.base, param="base")
    return job.config(**places, base=base, device=config.device)


def _val_max_bad_share(context: JobContext, job: FinetuneSpec) -> float:
    """What the check of the validation pairs allowed, so that an accepted data set cannot fail its job."""
    held_out = job.validation_data
    return 0.0 if held_out is None else context.store.datasets.get(held_out).max_bad_share


def figures(record: Record) -> dict[str, float]:
    return {name: float(value) for name, value in record.items() if name not in ("step", "steps")}


class _Progress:
    """Forwards a training's steps and metrics to the store and the supervisor's ticks."""

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
        """Called after every step; returns whether to stop."""
        self._done += 1
        self._context.advance(self._done, self._steps, self._estimate())
        # Earlier attempts' files are needed only until this attempt has a checkpoint of its own.
        if not self._has_own_checkpoint and self._context.folder.has_checkpoint_after(self._start):
            self._has_own_checkpoint = True
            self._context.folder.drop_earlier()
        return self._context.should_stop()

    def _estimate(self) -> float | None:
        """Estimate when the last step ends, from the pace since this attempt's first step."""
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
    # Everything is read by now; record the ids of data and base, not this machine's paths.
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
        between=context.check,
        before_saving=context.check_disk,
        min_save_interval_s=context.config.min_save_interval_s,
        max_bytes=context.config.max_job_bytes,
    )
    if result.delta is None:
        context.stop()
    return result


def _tell_again(context: JobContext, start: int) -> None:
    """Send the metrics up to the checkpoint that the attempt which wrote it did not get to send."""
    latest = context.store.events.latest_metrics(context.job.id)
    for record in read_log(context.folder.log):
        if (-1 if latest is None else latest.step) < record["step"] <= start:
            context.reporter.metrics(int(record["step"]), figures(record))


def _evaluate(
    context: JobContext, job: FinetuneSpec, clip: Clip, validation: Mapping[str, float]
) -> CandidateScores:
    """Run all evaluations that the job names on one model."""
    results: dict[str, Results] = {}
    for evaluation in job.evaluate:
        context.stage("evaluating")
        results[name_of(evaluation)] = _measure(context, evaluation, clip)
    return CandidateScores(clip.version, results, validation)


def name_of(evaluation: Evaluation) -> str:
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


class _Conclusion:
    """The end of a job after training: publish the version, decide about the alias, update the row."""

    def __init__(
        self,
        context: JobContext,
        job: FinetuneSpec,
        config: FinetuneConfig,
        parts: Parts,
        result: Result,
        scores: CandidateScores,
    ) -> None:
        self._context = context
        self._store = context.store
        self._job = job
        self._config = config
        self._parts = parts
        self._result = result
        self._scores = scores

    def end_job(self) -> None:
        """End the job with its version; retried if the alias was moved, or base or files deleted, meanwhile.

        Each try reads the current state, and ends with Stopped if the job was asked to stop.
        """
        while True:
            try:
                self._try_to_end()
                return
            except (AliasMoved, UnusableRecord, VersionGone) as error:
                self._context.reporter.event(str(error))

    def _try_to_end(self) -> None:
        verdict, move = self._decide()
        promotion = {
            "alias": self._job.alias,
            "promoted": move is not None,
            "why": verdict.why,
            **verdict.figures,
        }
        outcome = {
            "steps": self._result.steps_done,
            "metrics": dict(self._scores.validation),
            "warnings": [asdict(warning) for warning in self._result.warnings],
            "evaluations": _summaries(self._scores),
            "promotion": None if self._job.promote == "never" else promotion,
        }
        version = as_version(self._context.config, self._parts.base, self._publish(), self._scores)
        # Register a version's base first; most bases are an operator's own, known by reference alone.
        self._store.versions.register(as_reference(self._parts.base))
        self._context.succeed(version=version, result=outcome, promotion=move)

    def _publish(self) -> Published:
        assert self._result.delta is not None
        self._context.stage("publishing")
        return publish(
            self._result.delta,
            self._context.config.versions_dir,
            job=self._context.job.id,
            fence=self._context.job.fence,
            base=self._parts.base,
            log=self._context.folder.log,
        )

    def _decide(self) -> tuple[Verdict, Move | None]:
        """Decide whether to promote. The move applies only while the alias has the generation read here."""
        job, base = self._job, self._parts.base
        if job.promote == "never":
            return Verdict(False, "Promoting was not asked for.", {}), None
        self._context.stage("promoting")
        holder, generation = self._holder()
        if job.promote == "always":
            verdict = Verdict(True, "Promoting was asked for, whatever the figures.", {"compared_with": None})
        else:
            clip = base if holder is None or holder == base.version else self._load(holder)
            verdict = judge(self._scores_of(clip), self._scores, job.thresholds)
        self._context.reporter.event(verdict.why, data={"alias": job.alias, "promoted": verdict.better})
        if not verdict.better:
            return verdict, None
        move = Move(
            alias=job.alias,
            who=self._context.job.owner or "job",
            why=f"job {self._context.job.id}: {verdict.why}",
            expected_generation=generation,
            metrics=verdict.figures,
        )
        return verdict, move

    def _holder(self) -> tuple[str | None, int]:
        """The alias's version and generation; None and 0 if there is no such alias."""
        try:
            found = self._store.aliases.get(self._job.alias)
        except UnknownRecord:
            return None, 0
        return found.version, found.generation

    def _load(self, version: str) -> Clip:
        """Load the alias's version. Raises AliasMoved if the alias has moved and the version was deleted."""
        config = self._context.config
        try:
            reference = of_version(self._store, config, version, param="alias")
            clip = load_clip(reference, device=config.device, precision="float32")
            check_version(clip, version, param="alias")
            return clip
        except (JobFailed, CheckpointError) as error:
            if self._holder()[0] == version:
                raise
            raise AliasMoved(
                f"The alias {self._job.alias} was moved while its version was loaded."
            ) from error

    def _scores_of(self, clip: Clip) -> CandidateScores:
        """Compute the same scores for the version in service."""
        if clip.version == self._scores.version:
            return self._scores
        validation: Mapping[str, float] = {}
        if self._parts.validation is not None:
            validation = validate(clip, self._parts.validation, self._config.batch_size, self._context.check)
        return _evaluate(self._context, self._job, clip, validation)


def as_version(config: WorkerConfig, base: Clip, published: Published, scores: CandidateScores) -> NewVersion:
    """The row of a published version. Its folder is relative: the data folder may be mounted elsewhere."""
    # A base published here has a local path as its reference; its version id is valid everywhere.
    is_published = lies_among(parse(base.reference), config.versions_dir)
    return NewVersion(
        id=published.version,
        folder=published.folder.relative_to(config.data_dir).as_posix(),
        description={**published.description, "evaluations": _summaries(scores)},
        size_bytes=published.size_bytes,
        base=base.version if is_published else base.reference,
        base_version=base.version,
    )


def _summaries(scores: CandidateScores) -> dict[str, Any]:
    return {name: summary(results) for name, results in scores.results.items()}


def _say(context: JobContext) -> Any:
    def say(message: str) -> None:
        context.check()
        context.reporter.event(message.replace(str(Path(context.config.data_dir)) + "/", ""))

    return say
