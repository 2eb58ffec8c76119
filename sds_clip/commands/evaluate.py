"""`sds-clip evaluate`: a model's results on a benchmark."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sds_clip.errors import CliError
from sds_clip.options import (
    REFERENCES,
    Commands,
    add_command,
    add_json_option,
    describe_model,
    load_model,
    read_settings,
    show_progress,
)
from sds_clip.table import table

if TYPE_CHECKING:
    from models.clip import Clip
    from models.evaluation.winoground import WinogroundItem, WinogroundMetrics, WinogroundReport

_DESCRIPTION = """\
Winoground: text, image and group score, and how many items had a tie (a tie is wrong), over all items and by
tag. Chance is 25, 25 and 16.7 %. Evaluation runs in float32 unless asked.
"""

_EPILOG = (
    REFERENCES
    + """
examples:
  sds-clip evaluate winoground --model demo --data demo/data/heldout
  sds-clip evaluate winoground --model ViT-B-32/openai --data winoground/ --out b32.json
"""
)


def add(commands: Commands) -> None:
    """Declare the command and its benchmarks."""
    parser = add_command(
        commands,
        "evaluate",
        "measure a model on a benchmark",
        description="Measure a model on a benchmark.",
        epilog="`sds-clip evaluate winoground --help` says more.",
    )
    benchmarks = parser.add_subparsers(title="benchmarks", metavar="BENCHMARK", required=True)
    winoground = add_command(
        benchmarks,
        "winoground",
        "two images and two captions with the same words",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    winoground.add_argument("--model", required=True, metavar="REF", help="model to measure")
    winoground.add_argument(
        "--data", required=True, type=Path, metavar="PATH", help="folder with examples.jsonl and images/"
    )
    winoground.add_argument(
        "--out", type=Path, metavar="FILE", help="write everything, item by item, as JSON"
    )
    winoground.add_argument("--device", help="auto, cpu, cuda or cuda:N (default: auto, or SDS_CLIP_DEVICE)")
    winoground.add_argument(
        "--precision", default="float32", help="float32, bfloat16, float16 or auto (default: float32)"
    )
    winoground.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="images in one forward (default: 32)"
    )
    add_json_option(winoground)
    winoground.set_defaults(run=run_winoground)


def run_winoground(args: argparse.Namespace) -> int:
    """Print the scores, over all items and by tag."""
    if args.batch_size < 1:
        raise CliError("--batch-size must be at least 1")
    if args.out is not None and not args.out.absolute().parent.is_dir():
        raise CliError(f"{args.out.absolute().parent}: no such folder; create it, or choose another --out")
    from models.evaluation.winoground import evaluate_winoground, read_winoground

    items = read_winoground(args.data)
    clip = load_model(args, read_settings())
    report = evaluate_winoground(clip, items, batch_size=args.batch_size, progress=show_progress("images"))
    summary = _summary(clip, args.data, report)
    if args.out is not None:
        _write(args.out, {**summary, "items": _items(items, report)})
    if args.json:
        print(json.dumps(summary, indent=2))
    else:
        print(_table(report))
    return 0


def _summary(clip: Clip, data: Path, report: WinogroundReport) -> dict[str, Any]:
    return {
        "benchmark": "winoground",
        "data": str(data),
        "model": describe_model(clip),
        "overall": asdict(report.overall),
        "by_collapsed_tag": {tag: asdict(metrics) for tag, metrics in report.by_collapsed_tag.items()},
        "by_tag": {tag: asdict(metrics) for tag, metrics in report.by_tag.items()},
    }


def _items(items: list[WinogroundItem], report: WinogroundReport) -> list[dict[str, Any]]:
    from models.evaluation.winoground import winoground_correct

    text, image = winoground_correct(report.scores)
    return [
        {
            "id": item.id,
            "tag": item.tag,
            "collapsed_tag": item.collapsed_tag,
            "scores": report.scores[row].tolist(),
            "text": bool(text[row]),
            "image": bool(image[row]),
            "group": bool(text[row] & image[row]),
        }
        for row, item in enumerate(items)
    ]


def _table(report: WinogroundReport) -> str:
    rows = [_row("all", report.overall)]
    rows += [_row(tag, metrics) for tag, metrics in report.by_collapsed_tag.items()]
    if report.by_tag.keys() != report.by_collapsed_tag.keys():
        rows += [_row(f"tag {tag}", metrics) for tag, metrics in report.by_tag.items()]
    return table(["", "items", "text %", "image %", "group %", "ties"], rows, decimals=2)


def _row(name: str, metrics: WinogroundMetrics) -> list[object]:
    shares = (metrics.text_score, metrics.image_score, metrics.group_score)
    return [name, metrics.items, *(100 * share for share in shares), metrics.group_ties]


def _write(path: Path, content: dict[str, Any]) -> None:
    # Renamed into place, so that a run that dies leaves no half a result.
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
