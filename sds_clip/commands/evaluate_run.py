"""What `sds-clip evaluate` does: reads the data, measures one or two models, writes the results."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sds_clip.errors import CliError
from sds_clip.options import read_settings, show_progress

if TYPE_CHECKING:
    from app.settings import Settings
    from models.evaluation.benchmark import Benchmark
    from models.evaluation.comparison import Comparison
    from models.evaluation.results import Results


@dataclass(frozen=True)
class Evaluation:
    """A model's results, and what they were set beside."""

    results: Results
    served: Results | None = None
    baseline: Results | None = None
    comparison: Comparison | None = None
    report: Path | None = None


def evaluate(args: argparse.Namespace) -> Evaluation:
    """Measure the model and, where asked, the served precision and the baseline; write them into --out."""
    from models.evaluation.read import read_benchmark

    settings = read_settings()
    if args.baseline is not None:
        _check_reference(args.baseline)
    with _work_folder(args) as work:
        benchmark = read_benchmark(
            args.benchmark,
            args.data,
            work=work,
            images=args.images,
            classes=args.classes,
            templates=args.templates,
            order_seed=args.order_seed,
        )
        if args.scorer == "diffusion":
            results, served = _run_teacher(args, benchmark, settings, work), None
        else:
            results = _run_clip(args, benchmark, settings, work, args.model, args.precision)
            served = _run_served(args, benchmark, settings, work, results)
        baseline = None
        if args.baseline is not None:
            baseline = _run_clip(args, benchmark, settings, work, args.baseline, args.precision)
        if served is not None:
            results = replace(
                results, provenance={**results.provenance, "served_precision": _summary(served)}
            )
        return _written(args, Evaluation(results, served, baseline))


def _check_reference(reference: str) -> None:
    """A baseline that is not there should not be found out after the model was measured."""
    from models.checkpoints import source_of
    from models.references import parse

    source_of(parse(reference))


def _written(args: argparse.Namespace, found: Evaluation) -> Evaluation:
    if found.baseline is not None:
        from models.evaluation.comparison import compare

        found = replace(found, comparison=compare(found.baseline, found.results))
    if args.out is not None:
        from models.evaluation.comparison import write_comparison
        from models.evaluation.report import write_report
        from models.evaluation.results import write_results

        for earlier in (
            "comparison.json",
            "baseline.json",
        ):  # another run's, beside which these would be read
            (args.out / earlier).unlink(missing_ok=True)
        write_results(args.out / "results.json", found.results)
        if found.baseline is not None:
            write_results(args.out / "baseline.json", found.baseline)
        if found.comparison is not None:
            write_comparison(args.out / "comparison.json", found.comparison)
        report = write_report(args.out, found.results, found.comparison, found.baseline)
        found = replace(found, report=report)
    return found


@contextmanager
def _work_folder(args: argparse.Namespace) -> Iterator[Path]:
    """Where features are kept; a folder that goes at the end where nothing is to be kept."""
    kept = args.cache or (args.out and args.out / "cache")
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="sds-clip-evaluate-") as folder:
        yield Path(folder)


def _say(what: str, done: int, total: int) -> None:
    show_progress(what)(done, total)


def _run_clip(
    args: argparse.Namespace,
    benchmark: Benchmark,
    settings: Settings,
    work: Path,
    reference: str,
    precision: str,
) -> Results:
    from models.checkpoints import load_clip
    from models.evaluation.benchmark import run_benchmark
    from models.evaluation.scorers import ClipScorer

    clip = load_clip(reference, device=args.device or settings.device, precision=precision)
    with ClipScorer(clip, work / "features", batch_size=args.batch_size) as scorer:
        return run_benchmark(benchmark, scorer, max_bad_share=args.max_bad_share, say=_say)


def _run_served(
    args: argparse.Namespace, benchmark: Benchmark, settings: Settings, work: Path, results: Results
) -> Results | None:
    """The same in the precision that serving would choose; what was found already where that is the same."""
    from models.precision import choose_device, choose_precision

    if not args.also_served_precision:
        return None
    precision = choose_precision(settings.precision, choose_device(args.device or settings.device))
    if precision == results.provenance["precision"]:
        return results
    return _run_clip(args, benchmark, settings, work, args.model, precision)


def _summary(served: Results) -> dict[str, object]:
    return {
        "precision": served.provenance["precision"],
        "metrics": {name: metric.value for name, metric in served.metrics.items()},
    }


def _run_teacher(args: argparse.Namespace, benchmark: Benchmark, settings: Settings, work: Path) -> Results:
    from models.evaluation.benchmark import check_scorer

    check_scorer(benchmark.name, "diffusion")  # before a teacher of gigabytes is loaded
    missing = [name for name in ("accelerate", "diffusers") if find_spec(name) is None]
    if missing:
        raise CliError(f"the diffusion score needs {', '.join(missing)}: pip install 'sds-clip[train]'")
    from models.evaluation.teacher_scorer import TeacherScorer, run_teacher
    from models.teacher.load import load_teacher

    teacher = load_teacher(
        args.teacher, device=args.device or settings.device, precision=args.precision, vae=True
    )
    scorer = TeacherScorer(
        teacher,
        work / "scores",
        count=args.draws,
        seed=args.seed,
        error_of=args.score_error,
        batch_size=args.batch_size,
    )
    return run_teacher(benchmark, scorer, max_bad_share=args.max_bad_share, say=_say)
