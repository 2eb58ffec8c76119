"""`sds-clip match` and `sds-clip classify` score images against texts or labels, without a service."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import click

from sds_clip.models.choices import LabelSet, TemplateSet
from sds_clip.options import (
    command,
    file_option,
    image_limits,
    json_option,
    load_model,
    model_options,
    number_option,
    option,
    read_settings,
)
from sds_clip.progress import Progress
from sds_clip.table import printable, table

if TYPE_CHECKING:
    from torch import Tensor

    from sds_clip.app.settings import Settings
    from sds_clip.models.clip.model import Clip
    from sds_clip.models.clip.scoring import Match
    from sds_clip.models.images.decode import ImageLimits

_BATCH_SIZE = 32
_Problem: TypeAlias = dict[str, str]
"""Why an image has no features: a code and a message."""


class _LabelSets(click.Choice[str]):
    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Click's own message for a single choice reads as if the two words were compared."""
        return f"There is no label set {value!r}; choose {' or '.join(self.choices)}."


images_argument = click.argument(
    "images",
    nargs=-1,
    required=True,
    metavar="IMAGE...",
    help="Image files in JPEG, PNG, WebP or GIF format.",
)
text_option = option(
    "--text", greedy=True, required=True, metavar="TEXT...", help="Score these texts against each image."
)


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip match cat.jpg --text "a cat" "a dog"
sds-clip match *.png --text "a red circle left of a blue square" --model ViT-B-32/openai
sds-clip match cat.jpg --text "a cat" "a dog" --json | jq -r '.results[0].best_text'
""",
)
@images_argument
@text_option
@model_options
@json_option
def match(images: Sequence[str], text: Sequence[str], as_json: bool, **chosen: str | None) -> int:
    """Score texts against images.

    For each image and text, the output is the cosine of their features and the probability of the text given the
    image. The probability is a softmax over the texts, or a sigmoid for each text if the model was trained like
    SigLIP. POST /match of the service returns the same numbers.

    If an image cannot be read, an error names it, the other images are scored, and the exit code is 2.
    """
    _check_texts(text, "Text")
    settings = read_settings()
    clip = load_model(settings, **chosen)
    image_features, problems = _encode_files(clip, images, settings)
    matched = _match(clip, image_features, _encode_texts(clip, text))
    answers = [
        {
            "scores": matched.scores[row].tolist(),
            "logits": matched.logits[row].tolist(),
            "probabilities": matched.probabilities[row].tolist(),
            "best": best,
            "best_text": text[best],
        }
        for row, best in enumerate(matched.scores.argmax(dim=1).tolist())
    ]
    results = _results(images, problems, answers)
    if as_json:
        more = {"text_probabilities": matched.text_probabilities.tolist()} if len(images) > 1 else {}
        print(json.dumps({"model": _about(clip), "results": results, **more}, indent=2))
    else:
        rows: list[list[object]] = []
        for result in results:
            if "error" in result:
                rows.append([result["image"], None, None, f"error: {result['error']['code']}", ""])
                continue
            scored = zip(result["scores"], result["probabilities"], text, strict=True)
            for column, row in enumerate(scored):
                best = "*" if column == result["best"] else ""
                rows.append(["" if column else result["image"], *row, best])
        print(table(["image", "cosine", "probability", "text", "best"], rows))
    return _report(images, problems)


@command(
    extra="serve",
    references=True,
    examples="""\
sds-clip classify cat.jpg --label cat dog "polar bear"
sds-clip classify *.jpg --labels-file animals.txt --templates openai --top-k 3
sds-clip classify scan.png --label invoice letter --templates "a scan of a {}" "a photocopied {}"
sds-clip classify cat.jpg --label-set imagenet --json
""",
)
@images_argument
@option("--label", greedy=True, metavar="LABEL...", help="Choose among these labels.")
@file_option("--labels-file", help="Choose among the labels in this UTF-8 file, one per line.")
@option("--label-set", type=_LabelSets(get_args(LabelSet)), help="Choose among the labels of this data set.")
@number_option("--top-k", default=5, metavar="K", help="Show the best K labels for each image.")
@option(
    "--templates",
    greedy=True,
    metavar="TEMPLATE...",
    help="Put each label into these templates: simple (7 templates), openai (80), or texts of your own in which {} "
    "stands for the label (default: simple).",
)
@model_options
@json_option
def classify(
    images: Sequence[str],
    label: Sequence[str],
    labels_file: Path | None,
    label_set: str | None,
    top_k: int,
    templates: Sequence[str],
    as_json: bool,
    **chosen: str | None,
) -> int:
    """Find the labels that fit each image best (zero-shot classification).

    Each label is put into templates such as "a photo of a {}", and the text features of a label are averaged. The
    output is the labels whose averages are closest to the image. POST /classify of the service returns the same
    numbers.

    If an image cannot be read, an error names it, the other images are classified, and the exit code is 2.
    """
    labels = _labels(label, labels_file, label_set)
    patterns = _templates(templates or ["simple"])
    settings = read_settings()
    clip = load_model(settings, **chosen)
    image_features, problems = _encode_files(clip, images, settings)
    matched = _match(clip, image_features, _class_weights(clip, labels, patterns))
    answers = [{"predictions": _top(matched, row, labels, top_k)} for row in range(len(image_features))]
    results = _results(images, problems, answers)
    if as_json:
        print(json.dumps({"model": _about(clip), "results": results}, indent=2))
    else:
        rows: list[list[object]] = []
        for result in results:
            if "error" in result:
                rows.append([result["image"], None, f"error: {result['error']['code']}"])
            for place, found in enumerate(result.get("predictions", [])):
                rows.append(["" if place else result["image"], found["probability"], found["label"]])
        print(table(["image", "probability", "label"], rows))
    return _report(images, problems)


def _labels(given: Sequence[str], file: Path | None, label_set: str | None) -> list[str]:
    labels = list(given)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise click.ClickException(f"{file} is not a UTF-8 text file; save it as UTF-8.") from error
        labels += [line.strip() for line in lines if line.strip()]
    if label_set is not None:
        from sds_clip.models.clip.zero_shot import LABEL_SETS

        labels += LABEL_SETS[label_set]
    if not labels:
        raise click.UsageError("Give at least one label with --label, --labels-file or --label-set.")
    _check_texts(labels, "Label")
    return labels


def _check_texts(texts: Sequence[str], what: str) -> None:
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise click.ClickException(f"{what} {number} is empty. Remove it, or write something.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise click.ClickException(f"{what} {number} is not valid UTF-8.") from error


def _templates(given: Sequence[str]) -> list[str]:
    if len(given) == 1 and given[0] in get_args(TemplateSet):
        from sds_clip.models.clip.zero_shot import TEMPLATE_SETS

        return list(TEMPLATE_SETS[given[0]])
    for template in given:
        if "{}" not in template and "{c}" not in template:
            raise click.ClickException(
                f"The template {template!r} must contain {{}}, which stands for the label."
            )
    return list(given)


def _class_weights(clip: Clip, labels: list[str], templates: list[str]) -> Tensor:
    from sds_clip.models.clip.zero_shot import class_weights, prompts

    bars = Progress(counted="")
    features = _encode_texts(clip, prompts(labels, templates), progress=partial(bars.show, "prompts"))
    return class_weights(features, len(templates))


def _top(matched: Match, row: int, labels: list[str], top_k: int) -> list[dict[str, Any]]:
    # Sort by logit: unlikely labels can all have probability 0, but their logits differ.
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


def _match(clip: Clip, image_features: Tensor, text_features: Tensor) -> Match:
    from sds_clip.models.clip.scoring import match

    return match(image_features, text_features, logit_scale=clip.logit_scale, logit_bias=clip.logit_bias)


def _encode_files(
    clip: Clip, paths: Sequence[str], settings: Settings
) -> tuple[Tensor, list[_Problem | None]]:
    """Return features [i, d] of the files that decoded, and for each file its problem or None."""
    import torch

    limits = image_limits(settings)
    problems: list[_Problem | None] = []
    features: list[Tensor] = [torch.empty(0, clip.embed_dim)]
    for start in range(0, len(paths), _BATCH_SIZE):
        read = [_read(clip, path, limits) for path in paths[start : start + _BATCH_SIZE]]
        problems += [item if isinstance(item, dict) else None for item in read]
        pixels = [item for item in read if not isinstance(item, dict)]
        if pixels:
            features.append(clip.encode_image(torch.stack(pixels)).float().cpu())
    return _finite(torch.cat(features)), problems


def _encode_texts(
    clip: Clip, texts: Sequence[str], *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Tensor:
    from sds_clip.models.clip.encode import encode_texts

    return _finite(encode_texts(clip, texts, progress=progress))


def _finite(features: Tensor) -> Tensor:
    if not bool(features.isfinite().all()):
        raise click.ClickException(
            "The model computed numbers that are not finite; try --precision float32, or other weights."
        )
    return features


def _read(clip: Clip, path: str, limits: ImageLimits) -> Tensor | _Problem:
    from sds_clip.models.images.decode import ImageError, decode_image

    try:
        # One byte over the limit is enough for the decoder to reject the file.
        with Path(path).open("rb") as file:
            data = file.read(limits.max_bytes + 1)
        return clip.preprocess(decode_image(data, limits, least_side=clip.least_side))
    except ImageError as error:
        return {"code": error.code, "message": str(error)}
    except FileNotFoundError:
        reason = "There is no such file."
    except IsADirectoryError:
        reason = f"This is a folder. Give image files, for example {path}/*.jpg."
    except OSError as error:
        reason = f"The file cannot be read: {error.strerror or error}."
    return {"code": "file_unreadable", "message": reason}


def _about(clip: Clip) -> dict[str, str]:
    return {
        "name": clip.reference,
        "architecture": clip.architecture,
        "version": clip.version,
        "precision": clip.precision,
        "decoding": clip.decoding,
        "device": str(clip.device),
    }


def _results(
    paths: Sequence[str], problems: Sequence[_Problem | None], answers: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """For each image, its answer or its problem."""
    answered = iter(answers)
    return [
        {"index": index, "image": path, **(next(answered) if problem is None else {"error": problem})}
        for index, (path, problem) in enumerate(zip(paths, problems, strict=True))
    ]


def _report(paths: Sequence[str], problems: Sequence[_Problem | None]) -> int:
    """Report every skipped image on stderr; returns the exit code."""
    for path, problem in zip(paths, problems, strict=True):
        if problem is not None:
            print(printable(f"sds-clip: {path}: {problem['message']}"), file=sys.stderr)
    return 2 if any(problems) else 0
