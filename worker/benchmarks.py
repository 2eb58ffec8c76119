"""Benchmarks of data sets: how jobs read them, how they are checked, and what a job's row keeps of the results."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sds_clip.app.datasets.check import CheckResult, rejected
from sds_clip.app.datasets.folders import Content
from sds_clip.app.datasets.unpack import Progress
from sds_clip.app.errors import InvalidArchive
from sds_clip.models.errors import EvaluationError, ModelError
from sds_clip.models.evaluation.benchmark import Benchmark
from sds_clip.models.evaluation.captions_file import is_pairs
from sds_clip.models.evaluation.catalog import BENCHMARKS
from sds_clip.models.evaluation.image_check import Problems, data_hash, look_at_images
from sds_clip.models.evaluation.readers import read_benchmark
from sds_clip.models.evaluation.results import GROUP_MATCH, Results, as_json
from sds_clip.worker.data import captions_files, exactly_one, root_of
from sds_clip.worker.samples import samples_of_items, statistics

_TAGS = 60


def read_data(name: str, content: Content, work: Path) -> Benchmark:
    """Read a benchmark from a data set's files.

    Raises: EvaluationError or DataError if the files do not have the benchmark's layout.
    """
    return read_benchmark(name, data_path(name, content), work=work)


def data_path(name: str, content: Content) -> Path:
    """The path in a data set that a benchmark is read from. Raises DataError if several files could be it."""
    folder = root_of(content)
    if not BENCHMARKS[name].is_one_file or is_pairs(folder):
        return folder
    return exactly_one(captions_files(folder, (".json",)), folder)


def check_benchmark(
    name: str, max_bad_share: float, content: Content, *, progress: Progress | None = None
) -> CheckResult:
    """Check that a benchmark can read the data and that every image decodes."""
    hidden = root_of(content)

    def say(what: str, done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)

    if not (content.is_folder or BENCHMARKS[name].takes_shards):
        return rejected(
            InvalidArchive(
                f"A set of {name} is a folder, not shards; send an archive of that folder.",
                code="archive_format",
            )
        )
    with TemporaryDirectory(prefix="sds-clip-check-") as work:
        try:
            benchmark = read_data(name, content, Path(work))
        except ModelError as error:
            return rejected(error, hidden=hidden)
        problems = Problems(len(benchmark.items), max_bad_share)
        try:
            images = look_at_images(benchmark.items, problems, say, decode=True)
        except EvaluationError:  # too many items are bad
            images = None
    usable = problems.usable(benchmark.items)
    counts = {
        "items": len(benchmark.items),
        "usable": len(usable),
        "images": len({image.whole for item in usable for image in item.images}),
    }
    content_hash = None if images is None else data_hash(usable, images.keys, benchmark.settings)
    found = CheckResult.of(problems.images, counts, content_hash, hidden)
    if images is None:
        return found
    captions = (item.captions for item in benchmark.items)
    return replace(
        found,
        statistics=statistics(captions, images.longer_sides),
        samples=samples_of_items(benchmark.items, content),
    )


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


def described(results: Results, baseline: Results | None) -> dict[str, Any]:
    """What a job's row tells of an evaluation: the summary with the largest tags, and that of its baseline."""
    content = summary(results)
    if by_tag := _largest_tags(results):
        content["by_tag"] = by_tag
    if baseline is not None:
        content["baseline"] = summary(baseline)
    return content


def _largest_tags(results: Results) -> dict[str, Any]:
    """The main outcome and GroupMatch of the largest tags only; results.json holds all metrics of all tags."""
    shown = (results.outcome, GROUP_MATCH)
    by_tag = {
        tag: {name: metric for name, metric in metrics.items() if metric.get("outcome") in shown}
        for tag, metrics in as_json(results, items=False)["by_tag"].items()
    }
    largest = sorted(
        filter(by_tag.get, by_tag), key=lambda tag: -max(each["n"] for each in by_tag[tag].values())
    )
    return {tag: by_tag[tag] for tag in largest[:_TAGS]}
