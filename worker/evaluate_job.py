"""An evaluation job: a model on a benchmark, alone or against a baseline; results.json and report.html."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.comparison import PairedDifference
from sds_clip.models.evaluation.evaluation import Evaluation, Evaluator, write_evaluation
from sds_clip.models.evaluation.image_check import Say
from sds_clip.models.evaluation.results import Results
from sds_clip.worker.benchmarks import data_path, described
from sds_clip.worker.context import JobContext
from sds_clip.worker.data import content_of, root_of
from sds_clip.worker.references import check_version, loadable

if TYPE_CHECKING:
    from sds_clip.models.teacher.teacher import Teacher


def evaluate(context: JobContext) -> None:
    """Measure, write the files, and end the job. Raises what `sds_clip.worker.job_process.Runner` may."""
    job = EvaluateSpec.read(context.job.config)
    context.stage("loading")
    content = content_of(context.store, context.config, job.data, param="data")
    if job.scorer == "diffusion" and job.model is not None:
        context.reporter.event("The model is not used: the scorer diffusion measures the teacher.")
    found = _evaluator(context, job).evaluate(job.request(data_path(job.benchmark, content)))
    context.stage("writing")
    context.succeed(result=_written(context, _without_folder(found, root_of(content))))
    context.folder.drop_earlier()
    context.folder.drop()


def _evaluator(context: JobContext, job: EvaluateSpec) -> Evaluator:
    config = context.config

    def clip(name: str, precision: str) -> Clip:
        param = "model" if job.scorer == "clip" and name == job.model else "baseline"
        context.stage("loading")
        reference = loadable(context.store, config, name, param=param)
        loaded = load_clip(reference, device=config.main_device, precision=precision)
        check_version(loaded, name, param=param)
        context.stage("evaluating")
        return replace(loaded, reference=name)  # the name asked for, not its path on the server

    def teacher(reference: str, precision: str) -> "Teacher":
        from sds_clip.models.teacher.load import load_teacher

        loaded = load_teacher(reference, device=config.main_device, precision=precision, vae=True)
        context.stage("evaluating")
        return loaded

    return Evaluator(
        load_clip=clip,
        load_teacher=teacher,
        work=context.folder.work,
        features=config.features_dir,
        scores=context.folder.scores,  # hours of work: no other job may push them out of a cache
        max_feature_bytes=config.feature_cache_bytes,
        say=_say(context),
    )


def _say(context: JobContext) -> Say:
    stages = {"files": "reading", "items": "scoring"}

    def say(what: str, done: int, total: int) -> None:
        context.check()
        context.advance(done, total, stage=stages.get(what, f"encoding {what}"))

    return say


def _without_folder(found: Evaluation, folder: Path) -> Evaluation:
    """The same, with the files of items left out given relative to the folder."""

    def relative(results: Results) -> Results:
        left_out = results.provenance["items_left_out"]
        named = {item: reason.replace(f"{folder}/", "") for item, reason in left_out.items()}
        return replace(results, provenance={**results.provenance, "items_left_out": named})

    return replace(
        found, results=relative(found.results), baseline=found.baseline and relative(found.baseline)
    )


def _written(context: JobContext, found: Evaluation) -> dict[str, Any]:
    """Write the files, then return the job's result, which names them."""
    files = write_evaluation(context.folder.path, found)
    content = described(found.results, found.baseline)
    content["files"] = {
        name: path.relative_to(context.config.data_dir).as_posix() for name, path in files.items()
    }
    if found.comparison is not None:
        headline = found.comparison.headline
        content["comparison"] = {
            "outcome": headline.outcome,
            **_difference(headline),
            "outcomes": {name: _difference(one) for name, one in found.comparison.outcomes.items()},
            "macro": found.comparison.macro and asdict(found.comparison.macro),
        }
    return content


def _difference(of: PairedDifference) -> dict[str, float]:
    return {name: getattr(of, name) for name in ("difference", "low", "high", "p_better", "p_two_sided")}
