"""`sds-clip evaluate` measures a model on a benchmark, alone or compared with another model."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from sds_clip.extras import require_extra
from sds_clip.models.choices import ErrorOf, Precision
from sds_clip.models.evaluation.catalog import ALIASES, BENCHMARKS, BenchmarkInfo, ScorerName
from sds_clip.models.evaluation.request import EvaluationRequest
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
    share_option,
    together,
)
from sds_clip.progress import Progress
from sds_clip.signals import stopped_in_time
from sds_clip.table import say

if TYPE_CHECKING:
    from sds_clip.app.settings import Settings
    from sds_clip.models.evaluation.evaluation import Evaluator
    from sds_clip.models.teacher.teacher import Teacher

_DESCRIPTION = """\
Every figure is printed with its 95 % confidence interval and its chance level. A tie counts as wrong, and the number of
ties is printed.

With --out, DIR receives results.json, report.html and the computed features. If a run was killed, the same command
continues it. With --baseline a second model is measured too, and both are compared item by item.
"""


class _Benchmarks(Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a benchmark by its name here, in CLIP_benchmark, or in its authors' code."""
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


_OF_SOME = {
    "images": folder_option(
        "--images", help="Look for the images in this folder. By default they are beside the data."
    ),
    "classes": option(
        "--classes",
        metavar="SET",
        help="Use the class names of imagenet, or of this .txt or .json file (default: the names in the data).",
    ),
    "templates": option(
        "--templates",
        metavar="SET",
        help="Use these templates: photo, simple, openai, or a .txt or .json file (default: the templates in the data, "
        "or photo if it has none).",
    ),
    "order_seed": option(
        "--order-seed",
        type=int,
        default=EvaluationRequest.order_seed,
        metavar="N",
        help="Draw the wrong word orders with this seed.",
    ),
}
"""Options that only some benchmarks have."""


def _data_options(about: BenchmarkInfo) -> Decorator[Any]:
    """The option for the data, and those of some benchmarks."""
    data = option("--data", required=True, metavar="PATH", help=f"Read {about.data}.")
    return together(data, *(each for name, each in _OF_SOME.items() if name in about.options))


_SCORE = "Diffusion score"
_score_option = partial(option, section=_SCORE)
_diffusion_options = together(
    _score_option(
        "--scorer",
        type=click.Choice(get_args(ScorerName)),
        default=EvaluationRequest.scorer,
        help="Score with a CLIP model or with a diffusion model.",
    ),
    _score_option(
        "--teacher",
        metavar="REF",
        help="Measure this diffusion model. It is required if --scorer is diffusion.",
    ),
    number_option(
        "--draws",
        section=_SCORE,
        default=EvaluationRequest.draws,
        help="Score each image at this many noise levels.",
    ),
    _score_option(
        "--seed", type=int, default=EvaluationRequest.seed, metavar="N", help="Draw the noise with this seed."
    ),
    _score_option(
        "--score-error",
        type=click.Choice(get_args(ErrorOf)),
        default=EvaluationRequest.score_error,
        help="Score by the error of the predicted noise (epsilon) or of the predicted velocity.",
    ),
)


def _add_benchmark(name: str, about: BenchmarkInfo) -> None:
    diffusion = "diffusion" in about.scorers

    @evaluate.command(
        name,
        extra="serve",
        short_help=about.summary,
        help=f"{about.summary}\n\n{_DESCRIPTION}",
        references=True,
    )
    @_data_options(about)
    @option(
        "--model",
        required=not diffusion,
        metavar="REF",
        help=f"Measure this model.{' It is required unless --scorer is diffusion.' * diffusion}",
    )
    @option("--baseline", metavar="REF", help="Compare with this CLIP model, item by item.")
    @folder_option(
        "--out", help="Write results.json and report.html to this folder, which is created if needed."
    )
    @json_option
    @share_option(
        "--max-bad-share",
        default=EvaluationRequest.max_bad_share,
        help="Leave out items with missing or damaged images, as long as they are at most this share of all items.",
    )
    @(_diffusion_options if diffusion else together())
    @device_option
    @compute_option(
        "--precision",
        type=click.Choice(get_args(Precision)),
        default=EvaluationRequest.precision,
        metavar="FORMAT",
        help="Compute in this format: float32, bfloat16, float16 or auto.",
    )
    @compute_option(
        "--also-served-precision",
        is_flag=True,
        help="Measure a second time in the precision that `sds-clip serve` would use on this machine.",
    )
    @number_option(
        "--batch-size",
        section=COMPUTATION,
        default=EvaluationRequest.batch_size,
        help="Encode this many images at a time.",
    )
    @folder_option(
        "--cache",
        section=COMPUTATION,
        help="Keep features in this folder (default: the subfolder `cache` of --out).",
    )
    @stopped_in_time()
    def run(
        *,
        as_json: bool,
        out: Path | None,
        cache: Path | None,
        device: str | None,
        also_served_precision: bool,
        **given: Any,
    ) -> int:
        if out is not None:
            _check_out(out)
        settings = read_settings()
        device = device or settings.device
        served = _served_precision(settings, device) if also_served_precision else None
        try:
            asked = EvaluationRequest(benchmark=name, served_precision=served, **given)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        if asked.scorer == "diffusion" and asked.model:
            say(
                "--model is ignored: --scorer diffusion measures the teacher. Name a CLIP model with --baseline."
            )
        from sds_clip.commands.evaluate_print import print_evaluation
        from sds_clip.models.evaluation.evaluation import write_evaluation

        if asked.baseline is not None:
            check_reference(asked.baseline)
        kept = cache or (out and out / "cache")
        if kept is not None:
            kept.mkdir(parents=True, exist_ok=True)
        with nullcontext(kept) if kept else tempfile.TemporaryDirectory(prefix="sds-clip-evaluate-") as work:
            found = make_evaluator(Path(work), device).evaluate(asked)
        report = None if out is None else write_evaluation(out, found)["report"]
        print_evaluation(found, report, as_json=as_json)
        return 0


for _name, _about in BENCHMARKS.items():
    _add_benchmark(_name, _about)


def _check_out(out: Path) -> None:
    if out.suffix == ".json" or out.is_file():
        raise click.UsageError(
            f"--out must be a folder, but {out} is a file. The folder receives results.json, report.html and "
            "the computed features."
        )


def check_reference(reference: str) -> None:
    """Fail before anything is measured if a model does not exist."""
    from sds_clip.models.checkpoints.load import source_of
    from sds_clip.models.checkpoints.references import parse

    source_of(parse(reference))


def _served_precision(settings: Settings, device: str) -> str:
    """Return the precision that serving would choose here."""
    from sds_clip.models.clip.precision import choose_device, choose_precision, split_precision

    number, _ = split_precision(settings.precision)
    return choose_precision(number, choose_device(device))


def make_evaluator(work: Path, device: str) -> Evaluator:
    from sds_clip.models.checkpoints.load import load_clip
    from sds_clip.models.evaluation.evaluation import Evaluator

    def load_teacher(reference: str, precision: str) -> Teacher:
        require_extra("train", "the diffusion score")
        from sds_clip.models.teacher import load

        return load.load_teacher(reference, device=device, precision=precision, vae=True)

    return Evaluator(
        load_clip=lambda reference, precision: load_clip(reference, device=device, precision=precision),
        load_teacher=load_teacher,
        work=work,
        features=work / "features",
        scores=work / "scores",
        say=Progress(counted="").show,
    )
