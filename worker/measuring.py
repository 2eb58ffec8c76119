"""What both kinds of job need to measure models on data sets."""

from pathlib import Path
from typing import Any

from app.datasets.folders import Content
from app.datasets.unpack import content_root
from models.clip import Clip
from models.evaluation.benchmark import Benchmark, run_benchmark
from models.evaluation.checked import Say
from models.evaluation.read import read_benchmark
from models.evaluation.results import Results, as_json
from models.evaluation.scorers import ClipScorer
from worker.context import JobContext
from worker.data import captions_files, exactly_one


def read_data(name: str, content: Content, work: Path) -> Benchmark:
    """Read a benchmark from a data set's files.

    Raises: EvaluationError or DataError if the files do not have the benchmark's layout.
    """
    return read_benchmark(name, data_path(name, content), work=work)


def data_path(name: str, content: Content) -> Path:
    """The path in a data set that a benchmark is read from. Raises DataError if several files could be it."""
    folder = root_of(content)
    return exactly_one(captions_files(folder, (".json",)), folder) if name == "retrieval" else folder


def root_of(content: Content) -> Path:
    return content_root(content.paths[0]) if content.is_folder else content.paths[0].parent


def measure(
    context: JobContext,
    benchmark: Benchmark,
    clip: Clip,
    *,
    say: Say,
    max_bad_share: float = 0.0,
) -> Results:
    """Measure a fine-tuned model. Its features are cached for later jobs and attempts."""
    config = context.config
    with ClipScorer(clip, config.features_dir, max_bytes=config.feature_cache_bytes) as scorer:
        return run_benchmark(benchmark, scorer, max_bad_share=max_bad_share, say=say)


def summary(results: Results) -> dict[str, Any]:
    """Results without items and tags, as stored in a job's row and a version's description."""
    content = as_json(results, items=False)
    del content["by_tag"], content["format"]
    content["provenance"] = {
        name: content["provenance"].get(name)
        for name in (
            "model_version",
            "scorer",
            "precision",
            "seed",
            "data_hash",
            "items",
            "items_used",
            "code_version",
        )
    }
    return content
