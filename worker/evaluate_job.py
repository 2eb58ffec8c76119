"""An evaluation job: a model on a benchmark, alone or against a baseline; results.json and report.html."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from app.schemas.evaluate import EvaluateSpec
from models.checkpoints import load_clip
from models.evaluation.benchmark import Benchmark
from models.evaluation.comparison import Comparison, PairedDifference, compare, write_comparison
from models.evaluation.report import write_report
from models.evaluation.results import GROUP_MATCH, Results, as_json, write_results
from worker.context import JobContext
from worker.data import content_of
from worker.measuring import measure, read_data, root_of, summary, without_folder
from worker.references import check_version, loadable

_TAGS = 60


@dataclass(frozen=True)
class _Found:
    results: Results
    baseline: Results | None = None
    comparison: Comparison | None = None


def evaluate(context: JobContext) -> None:
    """Measure, write the files, and end the job. Raises what `worker.job_process.Runner` may."""
    job = EvaluateSpec.read(context.job.config)
    context.stage("loading")
    content = content_of(context.store, context.config, job.data, param="data")
    options: dict[str, Any] = {"order_seed": job.order_seed}
    if job.benchmark == "zero-shot":
        options |= {"classes": job.classes, "templates": job.templates}
    benchmark = read_data(job.benchmark, content, context.folder.work, **options)
    found = _measure(context, job, benchmark)
    found = replace(found, results=without_folder(found.results, root_of(content)))
    context.stage("writing")
    context.succeed(result=_written(context, found))
    context.folder.drop_earlier()
    context.folder.drop()


def _measure(context: JobContext, job: EvaluateSpec, benchmark: Benchmark) -> _Found:
    if job.scorer == "diffusion":
        if job.model is not None:
            context.reporter.event("The model is not used: the scorer diffusion measures the teacher.")
        results = _of_teacher(context, job, benchmark)
    else:
        assert job.model is not None
        results = _of_clip(context, job, benchmark, job.model, "model")
    if job.baseline is None:
        return _Found(results)
    baseline = _of_clip(context, job, benchmark, job.baseline, "baseline")
    return _Found(results, baseline, compare(baseline, results))


def _of_clip(context: JobContext, job: EvaluateSpec, benchmark: Benchmark, name: str, param: str) -> Results:
    context.stage("loading")
    reference = loadable(context.store, context.config, name, param=param)
    clip = load_clip(reference, device=context.config.device, precision=job.precision)
    check_version(clip, name, param=param)
    context.stage("evaluating")
    return measure(
        context,
        benchmark,
        replace(clip, reference=name),  # the name asked for, not its path on the server
        say=_say(context),
        batch_size=job.batch_size,
        max_bad_share=job.max_bad_share,
    )


def _of_teacher(context: JobContext, job: EvaluateSpec, benchmark: Benchmark) -> Results:
    from models.evaluation.teacher_scorer import TeacherScorer, run_teacher
    from models.teacher.load import load_teacher

    assert job.teacher is not None
    teacher = load_teacher(job.teacher, device=context.config.device, precision=job.precision, vae=True)
    context.stage("evaluating")
    scorer = TeacherScorer(
        teacher,
        context.folder.scores,  # hours of work: no other job may push them out of a cache
        count=job.draws,
        seed=job.seed,
        error_of=job.score_error,
        batch_size=job.batch_size,
    )
    return run_teacher(benchmark, scorer, max_bad_share=job.max_bad_share, say=_say(context))


def _written(context: JobContext, found: _Found) -> dict[str, Any]:
    """Write the files, then return the job's result, which names them."""
    folder = context.folder.path
    write_results(folder / "results.json", found.results)
    report = write_report(folder, found.results, found.comparison, found.baseline)
    files = {"results": folder / "results.json", "report": report}
    if found.baseline is not None:
        write_results(folder / "baseline.json", found.baseline)
        files["baseline"] = folder / "baseline.json"
    if found.comparison is not None:
        write_comparison(folder / "comparison.json", found.comparison)
        files["comparison"] = folder / "comparison.json"
    content = summary(found.results)
    if by_tag := _group_match_by_tag(found.results):
        content["by_tag"] = by_tag
    content["files"] = {
        name: path.relative_to(context.config.data_dir).as_posix() for name, path in files.items()
    }
    if found.comparison is not None and found.baseline is not None:
        headline = found.comparison.headline
        content["baseline"] = summary(found.baseline)
        content["comparison"] = {
            "outcome": headline.outcome,
            **_difference(headline),
            "outcomes": {name: _difference(one) for name, one in found.comparison.outcomes.items()},
            "macro": found.comparison.macro and asdict(found.comparison.macro),
        }
    return content


def _difference(of: PairedDifference) -> dict[str, float]:
    return {name: getattr(of, name) for name in ("difference", "low", "high", "p_better", "p_two_sided")}


def _group_match_by_tag(results: Results) -> dict[str, Any]:
    """GroupMatch for the largest tags only; results.json holds all metrics of all tags."""
    by_tag = as_json(results, items=False)["by_tag"]
    found = {tag: metrics[GROUP_MATCH] for tag, metrics in by_tag.items() if GROUP_MATCH in metrics}
    largest = sorted(found, key=lambda tag: -found[tag]["n"])[:_TAGS]
    return {tag: {GROUP_MATCH: found[tag]} for tag in largest}


def _say(context: JobContext) -> Any:
    stages = {"files": "reading", "items": "scoring"}

    def say(what: str, done: int, total: int) -> None:
        context.check()
        context.advance(done, total, stage=stages.get(what, f"encoding {what}"))

    return say
