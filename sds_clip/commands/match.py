"""`sds-clip match`: how well each text fits each image."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from sds_clip.encode import ImageProblem, encode_files, encode_texts
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
)
from sds_clip.table import printable, table

if TYPE_CHECKING:
    from models.scoring import Match

_DESCRIPTION = """\
Score every text against every image: the cosine of their features, and the probability of each text given the
image (softmax over the texts; a sigmoid each for SigLIP-style models). The numbers are those of POST /match.

An image that cannot be read is named, the others are answered, and the exit code is 2.
"""

_EPILOG = (
    REFERENCES
    + """
examples:
  sds-clip match cat.jpg --text "a cat" "a dog"
  sds-clip match *.png --text "a red circle left of a blue square" --model ViT-B-32/openai
  sds-clip match cat.jpg --text "a cat" "a dog" --json | jq '.results[0].best'
"""
)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "match",
        "score texts against images",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        usage="sds-clip match IMAGE [IMAGE ...] --text TEXT [TEXT ...] [options]",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="JPEG, PNG, WebP or GIF files")
    parser.add_argument(
        "--text", nargs="+", action="extend", required=True, metavar="TEXT", help="texts; may be repeated"
    )
    add_model_options(parser)
    add_json_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the scores; 2 when an image had to be left out."""
    texts = checked_texts(args.text, "text")
    settings = read_settings()
    clip = load_model(args, settings)
    from models.scoring import match

    image_features, problems = encode_files(clip, args.images, settings)
    matched = match(
        image_features, encode_texts(clip, texts), logit_scale=clip.logit_scale, logit_bias=clip.logit_bias
    )
    if args.json:
        print(
            json.dumps({"model": describe_model(clip), **_results(args.images, problems, matched)}, indent=2)
        )
    else:
        print(_table(args.images, texts, problems, matched))
    return report_problems(args.images, problems)


def report_problems(paths: list[str], problems: list[ImageProblem | None]) -> int:
    """Name every image that was left out, on stderr; the exit code."""
    for path, problem in zip(paths, problems, strict=True):
        if problem is not None:
            print(printable(f"sds-clip: {path}: {problem.message}"), file=sys.stderr)
    return 2 if any(problems) else 0


def _results(paths: list[str], problems: list[ImageProblem | None], matched: Match) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    rows = iter(range(len(matched.scores)))
    for index, (path, problem) in enumerate(zip(paths, problems, strict=True)):
        if problem is not None:
            error = {"code": problem.code, "message": problem.message}
            results.append({"index": index, "image": path, "error": error})
            continue
        row = next(rows)
        results.append(
            {
                "index": index,
                "image": path,
                "scores": matched.scores[row].tolist(),
                "logits": matched.logits[row].tolist(),
                "probabilities": matched.probabilities[row].tolist(),
                "best": int(matched.scores[row].argmax()),
            }
        )
    return {"results": results, "text_probabilities": matched.text_probabilities.tolist()}


def _table(paths: list[str], texts: list[str], problems: list[ImageProblem | None], matched: Match) -> str:
    rows: list[list[object]] = []
    answered = iter(range(len(matched.scores)))
    for path, problem in zip(paths, problems, strict=True):
        if problem is not None:
            rows.append([path, None, None, f"error: {problem.code}", ""])
            continue
        row = next(answered)
        best = int(matched.scores[row].argmax())
        for column, text in enumerate(texts):
            cosine, probability = matched.scores[row, column], matched.probabilities[row, column]
            star = "*" if column == best else ""
            rows.append([path if column == 0 else "", float(cosine), float(probability), text, star])
    return table(["image", "cosine", "probability", "text", "best"], rows)
