"""`sds-clip evaluate`: a model's results on a benchmark, alone or compared with another model's."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from models.evaluation.catalog import ALIASES, BENCHMARKS, BenchmarkInfo
from models.score_error import SCORE_ERROR, ErrorOf
from sds_clip.options import (
    COMPUTATION,
    Decorator,
    Group,
    compute_option,
    device_option,
    folder_option,
    json_option,
    number_option,
    option,
    read_settings,
    require_training,
    show_progress,
    together,
)

if TYPE_CHECKING:
    from app.settings import Settings
    from models.evaluation.benchmark import Benchmark
    from models.evaluation.comparison import Comparison
    from models.evaluation.results import Results

_DESCRIPTION = """\
Measures in float32 unless asked. Every figure has its 95 % interval and its chance, and ties, which are wrong, are
counted. With --out, DIR receives results.json and report.html, and keeps features, so that a run that was killed goes
on where it was. With --baseline a second model is measured too, and compared item by item.
"""


@dataclass(frozen=True)
class Request:
    """The options of one evaluation."""

    benchmark: str
    data: str
    model: str
    baseline: str | None
    out: Path | None
    max_bad_share: float
    scorer: str
    teacher: str
    device: str | None
    precision: str
    also_served_precision: bool
    batch_size: int
    cache: Path | None
    # Options that only some benchmarks have.
    images: Path | None = None
    classes: str | None = None
    templates: str | None = None
    order_seed: int = 0
    draws: int = 32
    seed: int = 0
    score_error: ErrorOf = SCORE_ERROR


class _Benchmarks(Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Look up a benchmark by its name, or by its name in CLIP_benchmark or its authors' code."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))


@click.group(
    cls=_Benchmarks,
    references=True,
    help=f"Measure a model on a benchmark.\n\n{_DESCRIPTION}",
    examples="""\
sds-clip evaluate winoground --model demo --data demo/data/heldout
sds-clip evaluate winoground --model local-dir:runs/sds/delta --baseline ViT-B-32/openai \\
    --data winoground/ --out runs/sds/winoground
sds-clip evaluate sugarcrepe --model ViT-B-32/openai --data sugarcrepe/ --images val2017/
sds-clip evaluate winoground --scorer diffusion --teacher demo --data demo/data/heldout
sds-clip evaluate zero-shot --model ViT-B-32/openai --data imagenet/val --classes imagenet --templates openai
""",
)
def evaluate() -> None:
    """A command for each benchmark; see `_add_benchmark`."""


def _data_options(about: BenchmarkInfo) -> Decorator[Any]:
    """The option for the data, and those that only some benchmarks have."""
    options = [option("--data", required=True, metavar="PATH", help=f"Read the data: {about.data}.")]
    if "images" in about.options:
        options.append(folder_option("--images", help="Find the images in this folder."))
    if "classes" in about.options:
        text = "Take the class names of imagenet, or of a .txt or .json file (default: the data's)."
        options.append(option("--classes", metavar="SET", help=text))
    if "templates" in about.options:
        text = "Take the templates photo, simple, openai, or a .txt or .json file (default: the data's, else photo)."
        options.append(option("--templates", metavar="SET", help=text))
    if "order_seed" in about.options:
        options.append(
            option("--order-seed", type=int, default=0, metavar="N", help="Seed the wrong orders.")
        )
    return together(*options)


_SCORE = "Diffusion score"
_score_option = partial(option, section=_SCORE)
_noise_options = together(
    number_option("--draws", section=_SCORE, default=32, help="Draw so many noise levels."),
    _score_option("--seed", type=int, default=0, metavar="N", help="Seed the noise."),
    _score_option(
        "--score-error",
        type=click.Choice(get_args(ErrorOf)),
        default=SCORE_ERROR,
        help="Score by the error of the noise or of the velocity.",
    ),
)


def _add_benchmark(name: str, about: BenchmarkInfo) -> None:
    summary = f"{about.summary[0].upper()}{about.summary[1:]}"

    @evaluate.command(name, short_help=summary, help=f"{summary}.\n\n{_DESCRIPTION}", references=True)
    @_data_options(about)
    @option(
        "--model",
        default="",
        show_default=False,
        metavar="REF",
        help="Measure this model (with --scorer clip).",
    )
    @option("--baseline", metavar="REF", help="Compare with this CLIP, item by item.")
    @folder_option("--out", help="Write results.json and report.html to this folder.")
    @json_option
    @option(
        "--max-bad-share",
        type=click.FloatRange(0, 1),
        default=0.0,
        metavar="SHARE",
        help="Leave out items whose images are missing or damaged, up to this share.",
    )
    # Offered even where the diffusion score cannot be used, to refuse it with the reason.
    @_score_option(
        "--scorer",
        type=click.Choice(["clip", "diffusion"]),
        default="clip",
        help="Score with a CLIP or with a diffusion model.",
    )
    @_score_option(
        "--teacher", default="", show_default=False, metavar="REF", help="Measure this diffusion model."
    )
    @(_noise_options if "diffusion" in about.scorers else together())
    @device_option
    @compute_option("--precision", default="float32", help="Compute in float32, bfloat16, float16 or auto.")
    @compute_option(
        "--also-served-precision",
        is_flag=True,
        help="Measure once more in the precision that `sds-clip serve` would use here.",
    )
    @number_option(
        "--batch-size", section=COMPUTATION, default=32, help="Put so many images through one forward."
    )
    @folder_option(
        "--cache", section=COMPUTATION, help="Keep features in this folder (default: DIR/cache of --out)."
    )
    def run(as_json: bool, **given: Any) -> int:
        return _run(Request(benchmark=name, **given), as_json=as_json)


for _name, _about in BENCHMARKS.items():
    _add_benchmark(_name, _about)


def _run(asked: Request, *, as_json: bool) -> int:
    _check(asked)
    if asked.scorer == "diffusion" and asked.model:
        print(
            "sds-clip: --model is not used: --scorer diffusion measures the teacher; --baseline names a CLIP",
            file=sys.stderr,
        )
    from sds_clip.commands.evaluate_print import print_evaluation

    print_evaluation(measure(asked), as_json=as_json)
    return 0


def _check(asked: Request) -> None:
    if asked.scorer == "clip" and not asked.model:
        raise click.UsageError("give the model to measure with --model REF")
    if asked.scorer == "clip" and asked.teacher:
        raise click.UsageError("--teacher belongs to --scorer diffusion")
    if asked.scorer == "diffusion" and not asked.teacher:
        raise click.UsageError("give the diffusion model with --teacher REF")
    if asked.scorer == "diffusion" and asked.also_served_precision:
        raise click.UsageError("--also-served-precision is for --scorer clip: teachers are not served")
    out = asked.out
    if out is not None and (out.suffix == ".json" or out.is_file()):
        raise click.UsageError(f"--out {out} is a folder, which receives results.json; name it without .json")
    if out is not None and not out.absolute().parent.is_dir():
        raise click.ClickException(
            f"{out.absolute().parent}: no such folder; create it, or choose another --out"
        )


@dataclass(frozen=True)
class Evaluation:
    """A model's results, and those compared with them."""

    results: Results
    served: Results | None = None
    baseline: Results | None = None
    comparison: Comparison | None = None
    report: Path | None = None


def measure(asked: Request) -> Evaluation:
    """Measure the model and, if asked, the served precision and the baseline; write them to --out."""
    from models.evaluation.read import read_benchmark

    settings = read_settings()
    if asked.baseline is not None:
        _check_reference(asked.baseline)
    with _work_folder(asked) as work:
        benchmark = read_benchmark(
            asked.benchmark,
            asked.data,
            work=work,
            images=asked.images,
            classes=asked.classes,
            templates=asked.templates,
            order_seed=asked.order_seed,
        )
        if asked.scorer == "diffusion":
            results, served = _run_teacher(asked, benchmark, settings, work), None
        else:
            results = _run_clip(asked, benchmark, settings, work, asked.model, asked.precision)
            served = _run_served(asked, benchmark, settings, work, results)
        baseline = None
        if asked.baseline is not None:
            baseline = _run_clip(asked, benchmark, settings, work, asked.baseline, asked.precision)
        if served is not None:
            results = replace(
                results, provenance={**results.provenance, "served_precision": _summary(served)}
            )
        return _written(asked, Evaluation(results, served, baseline))


def _check_reference(reference: str) -> None:
    """Fail on a missing baseline before the model is measured."""
    from models.checkpoints import source_of
    from models.references import parse

    source_of(parse(reference))


def _written(asked: Request, found: Evaluation) -> Evaluation:
    if found.baseline is not None:
        from models.evaluation.comparison import compare

        found = replace(found, comparison=compare(found.baseline, found.results))
    if asked.out is not None:
        from models.evaluation.comparison import write_comparison
        from models.evaluation.report import write_report
        from models.evaluation.results import write_results

        for earlier in ("comparison.json", "baseline.json"):  # an earlier run's would seem to belong here
            (asked.out / earlier).unlink(missing_ok=True)
        write_results(asked.out / "results.json", found.results)
        if found.baseline is not None:
            write_results(asked.out / "baseline.json", found.baseline)
        if found.comparison is not None:
            write_comparison(asked.out / "comparison.json", found.comparison)
        report = write_report(asked.out, found.results, found.comparison, found.baseline)
        found = replace(found, report=report)
    return found


@contextmanager
def _work_folder(asked: Request) -> Iterator[Path]:
    """Yield the folder for cached features, or a temporary one if nothing is kept."""
    kept = asked.cache or (asked.out and asked.out / "cache")
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="sds-clip-evaluate-") as folder:
        yield Path(folder)


def _say(what: str, done: int, total: int) -> None:
    show_progress(what)(done, total)


def _run_clip(
    asked: Request,
    benchmark: Benchmark,
    settings: Settings,
    work: Path,
    reference: str,
    precision: str,
) -> Results:
    from models.checkpoints import load_clip
    from models.evaluation.benchmark import run_benchmark
    from models.evaluation.scorers import ClipScorer

    clip = load_clip(reference, device=asked.device or settings.device, precision=precision)
    with ClipScorer(clip, work / "features", batch_size=asked.batch_size) as scorer:
        return run_benchmark(benchmark, scorer, max_bad_share=asked.max_bad_share, say=_say)


def _run_served(
    asked: Request, benchmark: Benchmark, settings: Settings, work: Path, results: Results
) -> Results | None:
    """Measure in the precision that serving would choose, unless that was measured already."""
    from models.precision import choose_device, choose_precision

    if not asked.also_served_precision:
        return None
    precision = choose_precision(settings.precision, choose_device(asked.device or settings.device))
    if precision == results.provenance["precision"]:
        return results
    return _run_clip(asked, benchmark, settings, work, asked.model, precision)


def _summary(served: Results) -> dict[str, object]:
    return {
        "precision": served.provenance["precision"],
        "metrics": {name: metric.value for name, metric in served.metrics.items()},
    }


def _run_teacher(asked: Request, benchmark: Benchmark, settings: Settings, work: Path) -> Results:
    from models.evaluation.benchmark import check_scorer

    check_scorer(benchmark.name, "diffusion")  # before a teacher of gigabytes is loaded
    require_training("the diffusion score")
    from models.evaluation.teacher_scorer import TeacherScorer, run_teacher
    from models.teacher.load import load_teacher

    teacher = load_teacher(
        asked.teacher, device=asked.device or settings.device, precision=asked.precision, vae=True
    )
    scorer = TeacherScorer(
        teacher,
        work / "scores",
        count=asked.draws,
        seed=asked.seed,
        error_of=asked.score_error,
        batch_size=asked.batch_size,
    )
    return run_teacher(benchmark, scorer, max_bad_share=asked.max_bad_share, say=_say)
