"""`sds-clip evaluate`: a model's results on a benchmark, alone or beside another model's."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sds_clip.errors import CliError
from sds_clip.options import REFERENCES, Commands, Parser, add_command, add_json_option

if TYPE_CHECKING:
    from models.evaluation.catalog import BenchmarkInfo

_DESCRIPTION = """\
Measure a model on a benchmark, in float32 unless asked. Every figure has its 95 % interval and its chance, and ties,
which are wrong, are counted. With --out, DIR receives results.json and report.html, and keeps features, so that a run
that was killed goes on where it was. With --baseline a second model is measured too, and compared item by item.
"""

_EPILOG = (
    REFERENCES
    + """
examples:
  sds-clip evaluate winoground --model demo --data demo/data/heldout
  sds-clip evaluate winoground --model local-dir:runs/sds/delta --baseline ViT-B-32/openai \\
      --data winoground/ --out runs/sds/winoground
  sds-clip evaluate sugarcrepe --model ViT-B-32/openai --data sugarcrepe/ --images val2017/
  sds-clip evaluate winoground --scorer diffusion --teacher demo --data demo/data/heldout
  sds-clip evaluate zero-shot --model ViT-B-32/openai --data imagenet/val --classes imagenet --templates openai
"""
)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "evaluate", "measure a model on a benchmark", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.declare_later = _add_benchmarks


def _add_benchmarks(parser: Parser) -> None:
    """A command for every benchmark, under all of its names."""
    from models.evaluation.catalog import ALIASES, BENCHMARKS

    benchmarks = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    for name, about in BENCHMARKS.items():
        one = benchmarks.add_parser(
            name,
            aliases=[alias for alias, known in ALIASES.items() if known == name],
            help=about.summary,
            description=f"{about.summary[0].upper()}{about.summary[1:]}.\n\n{_DESCRIPTION}",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _add_data_options(one, about)
        _add_model_options(one, about)
        _add_output_options(one)
        one.set_defaults(run=run, benchmark=name)


def _add_data_options(parser: argparse.ArgumentParser, about: BenchmarkInfo) -> None:
    parser.add_argument("--data", required=True, metavar="PATH", help=about.data)
    parser.set_defaults(images=None, classes=None, templates=None, order_seed=0)
    if "images" in about.options:
        parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    if "classes" in about.options:
        parser.add_argument(
            "--classes",
            metavar="SET",
            help="class names: imagenet, or a .txt or .json file (default: the data's)",
        )
    if "templates" in about.options:
        parser.add_argument(
            "--templates",
            metavar="SET",
            help="photo, simple, openai, or a .txt or .json file (default: the data's, else photo)",
        )
    if "order_seed" in about.options:
        parser.add_argument(
            "--order-seed", type=int, default=0, metavar="N", help="seed of the wrong orders (default: 0)"
        )
    parser.add_argument(
        "--max-bad-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="leave out items whose images are missing or damaged, up to this share (default: 0)",
    )


def _add_model_options(parser: argparse.ArgumentParser, about: BenchmarkInfo) -> None:
    from models.score_error import SCORE_ERROR, ErrorOf

    parser.add_argument("--model", metavar="REF", help="model to measure (with --scorer clip)")
    parser.set_defaults(scorer="clip", teacher=None, draws=32, seed=0, score_error=SCORE_ERROR)
    # Also where the diffusion score cannot be used: it is then refused with the reason.
    parser.add_argument("--scorer", choices=("clip", "diffusion"), help="what scores (default: clip)")
    parser.add_argument("--teacher", metavar="REF", help="the diffusion model of --scorer diffusion")
    if "diffusion" in about.scorers:
        parser.add_argument(
            "--draws", type=int, metavar="N", help="noise levels of the diffusion score (default: 32)"
        )
        parser.add_argument("--seed", type=int, metavar="N", help="seed of their noise (default: 0)")
        parser.add_argument(
            "--score-error",
            choices=get_args(ErrorOf),
            help=f"whose error is the score: the noise's or the velocity's (default: {SCORE_ERROR})",
        )
    parser.add_argument("--baseline", metavar="REF", help="a CLIP to compare with, item by item")
    parser.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: auto, or SDS_CLIP_DEVICE)")
    parser.add_argument(
        "--precision", default="float32", help="float32, bfloat16, float16 or auto (default: float32)"
    )
    parser.add_argument(
        "--also-served-precision",
        action="store_true",
        help="measure once more in the precision that `sds-clip serve` would use here",
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images in one forward (default: 32)"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for results.json and report.html")
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="folder that keeps features (default: DIR/cache of --out)"
    )
    add_json_option(parser)


def run(args: argparse.Namespace) -> int:
    """Measure, write and print."""
    _check(args)
    if args.scorer == "diffusion" and args.model is not None:
        print(
            "sds-clip: --model is not used: --scorer diffusion measures the teacher; --baseline names a CLIP",
            file=sys.stderr,
        )
    from sds_clip.commands.evaluate_print import print_evaluation
    from sds_clip.commands.evaluate_run import evaluate

    print_evaluation(evaluate(args), as_json=args.json)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.batch_size < 1:
        raise CliError("--batch-size must be at least 1")
    if args.draws < 1:
        raise CliError("--draws must be at least 1")
    if not 0 <= args.max_bad_share <= 1:
        raise CliError("--max-bad-share must be from 0 to 1")
    if args.scorer == "clip" and args.model is None:
        raise CliError("give the model to measure with --model REF")
    if args.scorer == "clip" and args.teacher is not None:
        raise CliError("--teacher belongs to --scorer diffusion")
    if args.scorer == "diffusion" and args.teacher is None:
        raise CliError("give the diffusion model with --teacher REF")
    if args.scorer == "diffusion" and args.also_served_precision:
        raise CliError("--also-served-precision is for --scorer clip: teachers are not served")
    if args.out is not None and (args.out.suffix == ".json" or args.out.is_file()):
        raise CliError(f"--out {args.out} is a folder, which receives results.json; name it without .json")
    if args.out is not None and not args.out.absolute().parent.is_dir():
        raise CliError(f"{args.out.absolute().parent}: no such folder; create it, or choose another --out")
