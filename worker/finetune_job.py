"""A fine-tuning job, from its data sets to a published version and possibly a promoted alias."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sds_clip.app.errors import AliasLocked, AliasMoved, MissingScope, UnusableRecord, VersionGone
from sds_clip.app.jobs.job_limits import MAX_KEEP_CHECKPOINTS, check_limits, steps_of
from sds_clip.app.registry.gate import CandidateScores
from sds_clip.app.registry.publish import lies_among, publish
from sds_clip.app.registry.store_source import unpublished_version
from sds_clip.app.schemas.finetune import Evaluation, FinetuneSpec
from sds_clip.app.store.records import Level, NewVersion
from sds_clip.models.checkpoints.delta import apply_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.references import parse
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError
from sds_clip.models.evaluation.evaluation import measure_clip
from sds_clip.models.evaluation.results import Results, write_results
from sds_clip.models.run_files import REPORT_FILE
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.processes import Rank, exchanged, find_rank
from sds_clip.models.training.run import Result, train
from sds_clip.models.training.trackers import make_tracker
from sds_clip.models.training.tracking import Tracker
from sds_clip.models.training.validation import validate
from sds_clip.worker.benchmarks import described, read_data, summary
from sds_clip.worker.context import JobContext
from sds_clip.worker.data import content_of, pairs_place
from sds_clip.worker.errors import JobFailed
from sds_clip.worker.followers import Training, followed
from sds_clip.worker.promotion import decide
from sds_clip.worker.references import check_version, loadable, of_version
from sds_clip.worker.training_progress import TrainingProgress


def finetune(context: JobContext) -> None:
    """Load, train, measure, decide about the alias, publish, and end the job.

    Raises what `sds_clip.worker.job_process.Runner` may.
    """
    context.stage("loading")
    job = FinetuneSpec.read(context.job.config)
    training = _training(context, job)
    with followed(training):
        run = _load(context, job, training)
        result = run.train()
    scores = run.measure(run.tuned(result), {name: float(value) for name, value in result.metrics.items()})
    run.end(result, scores)
    context.folder.drop_earlier()
    context.folder.drop()


def _training(context: JobContext, job: FinetuneSpec) -> Training:
    config = _resolved(context, job)
    training = context.store.datasets.get(job.training_data)
    # The number of steps of `epochs` is known only now that the data are checked.
    check_limits(config, steps_of(job, training))
    # What the check of the validation pairs allowed, so that an accepted data set cannot fail its job.
    held_out = job.validation_data
    val_max_bad_share = 0.0 if held_out is None else context.store.datasets.get(held_out).max_bad_share
    # Everything is read by its place; what is recorded are the ids of data and base, not this machine's paths.
    recorded = job.recorded(config)
    return Training(context.config, job.devices, config, recorded, context.folder.run, val_max_bad_share)


def _load(context: JobContext, job: FinetuneSpec, training: Training) -> "_Run":
    rank = find_rank(training.config.device)

    def say(message: str) -> None:
        context.check()
        context.reporter.event(message.replace(f"{context.config.data_dir}/", ""))

    parts = training.load(rank, say)
    check_version(parts.base, job.base, param="base")
    return _Run(context, job, training, parts, rank)


def _resolved(context: JobContext, job: FinetuneSpec) -> FinetuneConfig:
    """Return the run's configuration, with paths for its data sets and a loadable reference for its base."""
    store, config = context.store, context.config
    links = context.folder.links
    data = content_of(store, config, job.training_data, param="training_data")
    training = pairs_place(data, links / "training")
    places: dict[str, Any] = {"data": training.data, "images": training.images}
    # A job accepted before this limit existed may ask for more.
    places["keep_checkpoints"] = min(job.hyperparameters.keep_checkpoints, MAX_KEEP_CHECKPOINTS)
    if job.validation_data is not None:
        held_out = content_of(store, config, job.validation_data, param="validation_data")
        validation = pairs_place(held_out, links / "validation")
        # None would mean the images of the training data. Images of a folder's layout lie in the folder itself.
        beside = validation.data if validation.data.is_dir() else validation.data.parent
        images = validation.images or beside
        places |= {"val": validation.data, "val_images": images}
    base = loadable(store, config, job.base, param="base")
    # Beside the features: both can be computed again, and no backup has them.
    return job.config(**places, base=base, device=config.main_device, caption_cache=config.features_dir)


@dataclass(frozen=True, eq=False)
class _Run:
    """A job whose inputs are loaded."""

    context: JobContext
    job: FinetuneSpec
    training: Training
    parts: Parts
    rank: Rank

    def train(self) -> Result:
        context = self.context
        start = context.folder.take_over()
        progress = TrainingProgress(context, start)
        progress.tell_again()
        if start:
            context.reporter.event(f"Training continues after step {start}.", data={"step": start})
        elif context.job.fence > 1:
            context.reporter.event(
                "There is no complete checkpoint, so training starts again from step 0.", data={"step": 0}
            )
        context.check_disk()
        context.stage("training")
        context.count("training", start)
        exchanged(None)  # a process must not look for checkpoints before they are taken over
        result = train(
            self.training.recorded,
            self.parts,
            self.training.out,
            self.rank,
            resume=True,
            watcher=progress,
            tracker=self._tracker(),
            min_save_interval_s=context.config.min_save_interval_s,
            max_bytes=context.config.max_job_bytes,
        )
        if result.delta is None:
            context.stop()
        for warning in result.warnings:
            data = {"code": warning.code, **warning.figures}
            context.reporter.event(warning.message, level=Level.WARNING, data=data)
        return result

    def _tracker(self) -> Tracker | None:
        config, job = self.context.config, self.context.job.id
        if config.log_to is None:
            return None
        return make_tracker(config.log_to, name=job, key=job, folder=config.data_dir / "tensorboard" / job)

    def tuned(self, result: Result) -> Clip:
        assert result.delta is not None
        tuned = apply_delta(self.parts.base, result.delta)
        if tuned.version == self.parts.base.version:
            raise JobFailed(
                "nothing_learned", "Training changed no weight; train for more steps or with a higher lr."
            )
        return tuned

    def measure(self, clip: Clip, validation: Mapping[str, float]) -> CandidateScores:
        """Run all evaluations that the job names on one model."""
        results: dict[str, Results] = {}
        for evaluation in self.job.evaluate:
            self.context.stage("evaluating")
            results[evaluation.name] = self._results(evaluation, clip)
        return CandidateScores(clip.version, results, validation)

    def _results(self, evaluation: Evaluation, clip: Clip) -> Results:
        context = self.context
        content = content_of(context.store, context.config, evaluation.data, param="evaluate")
        benchmark = read_data(evaluation.benchmark, content, context.folder.work)

        def say(what: str, done: int, total: int) -> None:
            context.check()
            context.count(f"{evaluation.data} {what}", done)

        max_bad_share = context.store.datasets.get(evaluation.data).max_bad_share
        return measure_clip(
            clip,
            benchmark,
            features=context.config.features_dir,
            max_feature_bytes=context.config.feature_cache_bytes,
            max_bad_share=max_bad_share,
            say=say,
        )

    def end(self, result: Result, scores: CandidateScores) -> None:
        """End the job with its version.

        It is tried again if, meanwhile, the alias was moved, locked or taken away, or the base or the files were
        deleted. Each try reads the current state, and ends with Stopped if the job was asked to stop.
        """
        files = {**self._keep_report(), **self._keep_items("results", scores.results)}
        while True:
            try:
                self._try_to_end(result, scores, files)
                return
            except (AliasMoved, AliasLocked, MissingScope, UnusableRecord, VersionGone) as error:
                self.context.reporter.event(str(error))

    def _keep_report(self) -> dict[str, str]:
        """Move the report to where the job's row will name it: the folder of the run is removed."""
        folder = self.context.folder
        report = folder.path / REPORT_FILE
        os.replace(folder.run / REPORT_FILE, report)
        return {"report": report.relative_to(self.context.config.data_dir).as_posix()}

    def _keep_items(self, stem: str, found: Mapping[str, Results]) -> dict[str, str]:
        """Write results with their items, as an evaluation does, and return their files by the names given."""
        files = {}
        for number, (name, results) in enumerate(found.items()):
            file = self.context.folder.path / f"{stem}-{number}.json"
            write_results(file, results)
            files[name] = file.relative_to(self.context.config.data_dir).as_posix()
        return files

    def _try_to_end(self, result: Result, scores: CandidateScores, files: Mapping[str, str]) -> None:
        others: dict[str, Results] = {}

        def measure_holder(version: str | None) -> CandidateScores:
            holder = self._measure_holder(version)
            others.update(holder.results)
            return holder

        verdict, move = decide(self.context, self.job, scores, measure_holder)
        baselines = {asked.baseline: others[asked.name] for asked in self.job.evaluate if others}
        promotion = {
            "alias": self.job.alias,
            "promoted": move is not None,
            "why": verdict.why,
            **verdict.figures,
        }
        outcome = {
            "steps": result.steps_done,
            "metrics": dict(scores.validation),
            "warnings": [asdict(warning) for warning in result.warnings],
            "evaluations": {
                name: described(results, others.get(name)) for name, results in scores.results.items()
            },
            "promotion": None if self.job.promote == "never" else promotion,
            "files": {**files, **self._keep_items("baseline", baselines)},
        }
        version = self._publish(result, {name: summary(results) for name, results in scores.results.items()})
        # Register a version's base first; most bases are an operator's own, known by reference alone.
        self.context.store.versions.register(unpublished_version(self.parts.base))
        self.context.succeed(version=version, result=outcome, promotion=move)

    def _publish(self, result: Result, evaluations: Mapping[str, Any]) -> NewVersion:
        """Publish the version's folder, and return its row."""
        assert result.delta is not None
        context, base = self.context, self.parts.base
        context.stage("publishing")
        published = publish(
            result.delta,
            context.config.versions_dir,
            job=context.job.id,
            fence=context.job.fence,
            base=base,
            log=context.folder.log,
        )
        # A base published here has a local path as its reference; its version id is valid everywhere.
        is_published = lies_among(parse(base.reference), context.config.versions_dir)
        return NewVersion(
            id=published.version,
            # Relative, since the data folder may be mounted elsewhere.
            folder=published.folder.relative_to(context.config.data_dir).as_posix(),
            description={**published.description, "evaluations": evaluations},
            size_bytes=published.size_bytes,
            base=base.version if is_published else base.reference,
            base_version=base.version,
        )

    def _measure_holder(self, version: str | None) -> CandidateScores:
        """Measure the version in service, or the base where there is none, as the new one was measured."""
        base = self.parts.base
        clip = base if version is None or version == base.version else self._load_holder(version)
        validation: Mapping[str, float] = {}
        if self.parts.validation is not None:
            validation = validate(
                clip,
                self.parts.validation,
                self.training.config.batch_size,
                lambda done, total: self.context.check(),
            )
        return self.measure(clip, validation)

    def _load_holder(self, version: str) -> Clip:
        """Load the alias's version. Raises AliasMoved if the alias has moved and the version was deleted."""
        config = self.context.config
        try:
            reference = of_version(self.context.store, config, version, param="alias")
            clip = load_clip(reference, device=config.main_device, precision="float32")
            check_version(clip, version, param="alias")
            return clip
        except (JobFailed, CheckpointError) as error:
            alias = self.context.store.aliases.find(self.job.alias)
            if alias is not None and alias.version == version:
                raise
            raise AliasMoved(f"The alias {self.job.alias} was moved while its version was loaded.") from error
