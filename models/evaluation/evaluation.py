"""One evaluation, from its request to its files. The command line and the jobs share this code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.comparison import Comparison, compare, write_comparison
from sds_clip.models.evaluation.image_check import Say, quiet
from sds_clip.models.evaluation.readers import read_benchmark
from sds_clip.models.evaluation.report import write_report
from sds_clip.models.evaluation.request import EvaluationRequest
from sds_clip.models.evaluation.results import Results, write_results
from sds_clip.models.evaluation.scorers import ClipScorer

if TYPE_CHECKING:
    from sds_clip.models.teacher.teacher import Teacher


@dataclass(frozen=True)
class Evaluation:
    """A model's results, and those compared with them."""

    results: Results
    served: Results | None = None
    baseline: Results | None = None
    comparison: Comparison | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Runs evaluations with the caller's model loader, folders and progress display."""

    load_clip: Callable[[str, str], Clip]
    """Called with a reference and a precision, like `load_teacher`."""
    load_teacher: Callable[[str, str], Teacher]
    work: Path
    """The folder for what is made from the data, such as order sets."""
    features: Path
    """The folder of the features that runs share."""
    scores: Path
    """The folder of the diffusion scores."""
    max_feature_bytes: int | None = None
    say: Say = quiet

    def evaluate(self, asked: EvaluationRequest) -> Evaluation:
        """Read the data, then measure the model, its served precision and the baseline, and compare.

        Raises:
            EvaluationError or DataError: the data have another layout, or the benchmark cannot be run on them
                or with this scorer. Errors of loading a model propagate.
        """
        benchmark = read_benchmark(asked.benchmark, asked.data, work=self.work, **asked.of_some)
        served = None
        if asked.scorer == "diffusion":
            results = self._of_teacher(asked, benchmark)
        else:
            results = self._of_clip(asked, benchmark, asked.model, asked.precision)
            if asked.served_precision is not None:
                same = asked.served_precision == results.provenance["precision"]
                served = (
                    results if same else self._of_clip(asked, benchmark, asked.model, asked.served_precision)
                )
                values = {name: metric.value for name, metric in served.metrics.items()}
                summary = {"precision": served.provenance["precision"], "metrics": values}
                results = replace(results, provenance={**results.provenance, "served_precision": summary})
        if asked.baseline is None:
            return Evaluation(results, served)
        baseline = self._of_clip(asked, benchmark, asked.baseline, asked.precision)
        return Evaluation(results, served, baseline, compare(baseline, results))

    def _of_clip(
        self, asked: EvaluationRequest, benchmark: Benchmark, reference: str | None, precision: str
    ) -> Results:
        assert reference is not None
        return measure_clip(
            self.load_clip(reference, precision),
            benchmark,
            features=self.features,
            max_feature_bytes=self.max_feature_bytes,
            batch_size=asked.batch_size,
            max_bad_share=asked.max_bad_share,
            say=self.say,
        )

    def _of_teacher(self, asked: EvaluationRequest, benchmark: Benchmark) -> Results:
        assert asked.teacher is not None
        teacher = self.load_teacher(asked.teacher, asked.precision)
        # Needs packages of the extra `train`; without them, loading the teacher has failed with a better message.
        from sds_clip.models.evaluation.teacher_scorer import TeacherScorer, run_teacher

        scorer = TeacherScorer(
            teacher,
            self.scores,
            count=asked.draws,
            seed=asked.seed,
            error_of=asked.score_error,
            batch_size=asked.batch_size,
        )
        return run_teacher(benchmark, scorer, max_bad_share=asked.max_bad_share, say=self.say)


def measure_clip(
    clip: Clip,
    benchmark: Benchmark,
    *,
    features: Path,
    max_feature_bytes: int | None = None,
    batch_size: int = EvaluationRequest.batch_size,
    max_bad_share: float = EvaluationRequest.max_bad_share,
    say: Say = quiet,
) -> Results:
    """Measure a CLIP on a benchmark. Its features are kept in a folder for later runs. Raises EvaluationError."""
    with ClipScorer(clip, features, batch_size=batch_size, max_bytes=max_feature_bytes) as scorer:
        return run_benchmark(benchmark, scorer, max_bad_share=max_bad_share, say=say)


def write_evaluation(folder: Path, found: Evaluation) -> dict[str, Path]:
    """Write the results, the comparison and the report to the folder, and return the files by name.

    Raises:
        EvaluationError: the report cannot be written.
    """
    files = {"results": folder / "results.json"}
    for name in ("baseline", "comparison"):  # left by an earlier run
        (folder / f"{name}.json").unlink(missing_ok=True)
    write_results(files["results"], found.results)
    if found.baseline is not None:
        files["baseline"] = folder / "baseline.json"
        write_results(files["baseline"], found.baseline)
    if found.comparison is not None:
        files["comparison"] = folder / "comparison.json"
        write_comparison(files["comparison"], found.comparison)
    files["report"] = write_report(folder, found.results, found.comparison, found.baseline)
    return files
