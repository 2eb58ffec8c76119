"""`sds-clip classify`: which label fits each image."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sds_clip.commands.match import report_problems
from sds_clip.encode import ImageProblem, encode_files, encode_texts
from sds_clip.errors import CliError
from sds_clip.options import (
    REFERENCES,
    Commands,
    add_command,
    add_json_option,
    add_model_options,
    checked_texts,
    describe_model,
    load_model,
    read_settings,
    show_progress,
)
from sds_clip.table import table

if TYPE_CHECKING:
    from torch import Tensor

    from models.clip import Clip
    from models.scoring import Match

_DESCRIPTION = """\
Zero-shot classification: each label is put into templates such as "a photo of a {}", and an image gets the
labels whose averaged text features fit best. The numbers are those of POST /classify.

An image that cannot be read is named, the others are answered, and the exit code is 2.
"""

_EPILOG = (
    REFERENCES
    + """
examples:
  sds-clip classify cat.jpg --label cat dog "polar bear"
  sds-clip classify *.jpg --labels-file animals.txt --templates openai --top-k 3
  sds-clip classify scan.png --label invoice letter --templates "a scan of a {}" "a photocopied {}"
  sds-clip classify cat.jpg --label-set imagenet --json
"""
)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "classify",
        "choose the labels that fit images",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="sds-clip classify IMAGE [IMAGE ...] (--label LABEL ... | --labels-file FILE) [options]",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG, WebP or GIF files")
    parser.add_argument(
        "--label", nargs="+", action="extend", default=[], metavar="LABEL", help="labels; may be repeated"
    )
    parser.add_argument("--labels-file", type=Path, metavar="FILE", help="a UTF-8 file with one label a line")
    parser.add_argument("--label-set", choices=("imagenet",), help="a named set of labels")
    parser.add_argument(
        "--templates",
        nargs="+",
        default=["simple"],
        metavar="TEMPLATE",
        help="simple (7), openai (80), or texts of your own with {} for the label (default: simple)",
    )
    parser.add_argument(
        "--top-k", type=int, default=5, metavar="K", help="labels to show for an image (default: 5)"
    )
    add_model_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the best labels of every image; 2 when an image had to be left out."""
    if args.top_k < 1:
        raise CliError("--top-k must be at least 1")
    labels = _labels(args)
    templates = _templates(args.templates)
    settings = read_settings()
    clip = load_model(args, settings)
    from models.scoring import match

    image_features, problems = encode_files(clip, args.images, settings)
    weights = _class_weights(clip, labels, templates)
    matched = match(image_features, weights, logit_scale=clip.logit_scale, logit_bias=clip.logit_bias)
    predictions = [_top(matched, row, labels, args.top_k) for row in range(len(image_features))]
    if args.json:
        results = _results(args.images, problems, predictions)
        print(json.dumps({"model": describe_model(clip), "results": results}, indent=2))
    else:
        print(_table(args.images, problems, predictions))
    return report_problems(args.images, problems)


def _labels(args: argparse.Namespace) -> list[str]:
    labels = list(args.label)
    if args.labels_file is not None:
        try:
            lines = args.labels_file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise CliError(f"{args.labels_file}: is not UTF-8 text") from error
        labels += [line.strip() for line in lines if line.strip()]
    if args.label_set == "imagenet":
        from models.zero_shot import IMAGENET_LABELS

        labels += IMAGENET_LABELS
    return checked_texts(labels, "label (--label, --labels-file or --label-set)")


def _templates(given: list[str]) -> list[str]:
    if given == ["simple"] or given == ["openai"]:
        from models.zero_shot import OPENAI_TEMPLATES, SIMPLE_TEMPLATES

        return list(SIMPLE_TEMPLATES if given == ["simple"] else OPENAI_TEMPLATES)
    for template in given:
        if "{}" not in template and "{c}" not in template:
            raise CliError(f"template {template!r} needs {{}} where the label goes")
    return given


def _class_weights(clip: Clip, labels: list[str], templates: list[str]) -> Tensor:
    from models.zero_shot import class_weights, prompts

    features = encode_texts(clip, prompts(labels, templates), progress=show_progress("prompts"))
    return class_weights(features, len(templates))


def _top(matched: Match, row: int, labels: list[str], top_k: int) -> list[dict[str, Any]]:
    # By logit: far-off labels can share a probability of 0 and still differ.
    order = matched.logits[row].argsort(descending=True, stable=True)[:top_k].tolist()
    return [
        {
            "label": labels[place],
            "index": place,
            "score": float(matched.scores[row, place]),
            "probability": float(matched.probabilities[row, place]),
        }
        for place in order
    ]


def _results(
    paths: list[str], problems: list[ImageProblem | None], predictions: list[list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    answered = iter(predictions)
    results: list[dict[str, Any]] = []
    for index, (path, problem) in enumerate(zip(paths, problems, strict=True)):
        if problem is None:
            results.append({"index": index, "image": path, "predictions": next(answered)})
        else:
            error = {"code": problem.code, "message": problem.message}
            results.append({"index": index, "image": path, "error": error})
    return results


def _table(
    paths: list[str], problems: list[ImageProblem | None], predictions: list[list[dict[str, Any]]]
) -> str:
    rows: list[list[object]] = []
    answered = iter(predictions)
    for path, problem in zip(paths, problems, strict=True):
        if problem is not None:
            rows.append([path, None, f"error: {problem.code}"])
            continue
        for place, prediction in enumerate(next(answered)):
            rows.append([path if place == 0 else "", prediction["probability"], prediction["label"]])
    return table(["image", "probability", "label"], rows)
