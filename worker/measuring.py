"""Measures one model on one benchmark, for both kinds of job."""

from dataclasses import replace
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


def read_data(name: str, content: Content, work: Path, **options: Any) -> Benchmark:
    """Read a benchmark from a data set's files; `options` are those of `read_benchmark`.

    Raises: EvaluationError or DataError if the files do not have the benchmark's layout.
    """
    folder = root_of(content)
    if name == "retrieval":
        captions = exactly_one(captions_files(folder, (".json",)), folder)
        return read_benchmark(name, captions, work=work, **options)
    return read_benchmark(name, folder, work=work, **options)


def root_of(content: Content) -> Path:
    return content_root(content.paths[0]) if content.is_folder else content.paths[0].parent


def without_folder(results: Results, folder: Path) -> Results:
    """The same results, with the files of items left out given relative to the folder."""
    left_out = results.provenance["items_left_out"]
    named = {item: reason.replace(f"{folder}/", "") for item, reason in left_out.items()}
    return replace(results, provenance={**results.provenance, "items_left_out": named})


def measure(
    context: JobContext,
    benchmark: Benchmark,
    clip: Clip,
    *,
    say: Say,
    batch_size: int = 32,
    max_bad_share: float = 0.0,
) -> Results:
    """Measure a model. Its features are cached for later jobs and attempts."""
    config = context.config
    with ClipScorer(
        clip, config.features_dir, batch_size=batch_size, max_bytes=config.feature_cache_bytes
    ) as scorer:
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
