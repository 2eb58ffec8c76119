"""Winoground: two images and two captions with the same words; which belongs to which?

A set is a folder with `examples.jsonl`, one item a line, and `images/`, named by file stem:

    {"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "...", "caption_1": "...",
     "tag": "Relation", "secondary_tag": "", "num_main_preds": 1, "collapsed_tag": "Relation"}
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from models.clip import Clip
from models.evaluation.errors import EvaluationError
from models.evaluation.features import Progress, encode_images, encode_texts
from models.evaluation.items import text_of
from models.files import read_text

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
UNTAGGED = "untagged"
CHANCE = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6, "group_match": 1 / 2}
"""How likely random scores are to get an item right."""


@dataclass(frozen=True)
class WinogroundItem:
    """Two images and two captions; caption k describes image k."""

    id: str
    images: tuple[Path, Path]
    captions: tuple[str, str]
    tag: str = ""
    secondary_tag: str = ""
    collapsed_tag: str = ""


@dataclass(frozen=True)
class WinogroundMetrics:
    """Shares of items in [0, 1], and how many items had a tie (which counts as wrong).

    An item has a text tie when either of its two text comparisons is between equal scores, an image tie
    likewise, and a group tie when it has a text tie or an image tie. GroupMatch has one comparison.
    """

    items: int
    text_score: float
    image_score: float
    group_score: float
    text_ties: int
    image_ties: int
    group_ties: int
    group_match: float
    group_match_ties: int
    d_prime: float | None
    """Of the margins of GroupMatch; see `d_prime`."""


@dataclass(frozen=True, eq=False)
class WinogroundReport:
    """Metrics over all items and by tag, with the scores that they were computed from."""

    overall: WinogroundMetrics
    by_collapsed_tag: dict[str, WinogroundMetrics]
    by_tag: dict[str, WinogroundMetrics]
    scores: Float[Tensor, "n 2 2"]


def winoground_metrics(scores: Float[Tensor, "n 2 2"]) -> WinogroundMetrics:
    """Text, image and group score and GroupMatch of raw scores `scores[item, caption, image]`, never softmaxed.

    text = s(c0,i0) > s(c1,i0) and s(c1,i1) > s(c0,i1); image = s(c0,i0) > s(c0,i1) and s(c1,i1) > s(c1,i0);
    group = both; GroupMatch = s(c0,i0) + s(c1,i1) > s(c0,i1) + s(c1,i0) (arXiv 2510.07632). Strictly greater: a tie
    is wrong, and counted. `CHANCE` has what random scores reach.

    Raises:
        EvaluationError: no items, or a score that is not finite.
    """
    if len(scores) == 0:
        raise EvaluationError("There are no items to score.")
    if not bool(torch.isfinite(scores).all()):
        raise EvaluationError("Some scores are not finite: the model's weights or its precision are broken.")
    text, image = winoground_correct(scores)
    c0i0, c0i1, c1i0, c1i1 = scores[:, 0, 0], scores[:, 0, 1], scores[:, 1, 0], scores[:, 1, 1]
    text_tie = (c0i0 == c1i0) | (c1i1 == c0i1)
    image_tie = (c0i0 == c0i1) | (c1i1 == c1i0)
    margins = group_match_margins(scores)
    return WinogroundMetrics(
        items=len(scores),
        text_score=_share(text),
        image_score=_share(image),
        group_score=_share(text & image),
        text_ties=int(text_tie.sum()),
        image_ties=int(image_tie.sum()),
        group_ties=int((text_tie | image_tie).sum()),
        group_match=_share(margins > 0),
        group_match_ties=int((margins == 0).sum()),
        d_prime=d_prime(margins),
    )


def winoground_correct(scores: Float[Tensor, "n 2 2"]) -> tuple[Bool[Tensor, "n"], Bool[Tensor, "n"]]:
    """For each item of `scores[item, caption, image]`: is text right, is image right (group is both)."""
    c0i0, c0i1, c1i0, c1i1 = scores[:, 0, 0], scores[:, 0, 1], scores[:, 1, 0], scores[:, 1, 1]
    return (c0i0 > c1i0) & (c1i1 > c0i1), (c0i0 > c0i1) & (c1i1 > c1i0)


def group_match_margins(scores: Float[Tensor, "n 2 2"]) -> Float[Tensor, "n"]:
    """s(c0,i0) + s(c1,i1) - s(c0,i1) - s(c1,i0) of each item of `scores[item, caption, image]`, in float64.

    A level that is added to both scores of a caption, or of an image, cancels.
    """
    scores = scores.double()
    # Differences first: of scores that do not depend on the caption, or on the image, exactly 0 is left.
    return (scores[:, 0, 0] - scores[:, 1, 0]) + (scores[:, 1, 1] - scores[:, 0, 1])


def d_prime(margins: Float[Tensor, "n"]) -> float | None:
    """The margins' mean over their standard deviation (of a sample, n - 1); None where all are equal."""
    if bool((margins == margins[0]).all()):
        return None
    return float(margins.double().mean() / margins.double().std())


def pair_scores(
    image_features: Float[Tensor, "n 2 d"], text_features: Float[Tensor, "n 2 d"]
) -> Float[Tensor, "n 2 2"]:
    """Cosines `scores[item, caption, image]` of normalised features, summed in float64.

    Elementwise, not as a matrix product: equal features then give equal scores wherever they stand.
    """
    return (text_features.double()[:, :, None] * image_features.double()[:, None, :]).sum(dim=-1)


def evaluate_winoground(
    clip: Clip, items: Sequence[WinogroundItem], *, batch_size: int = 32, progress: Progress | None = None
) -> WinogroundReport:
    """Score every item with the model, each file and each caption encoded once."""
    paths = [path for item in items for path in item.images]
    captions = [caption for item in items for caption in item.captions]
    text_features = encode_texts(clip, captions)
    image_features = encode_images(clip, paths, batch_size=batch_size, progress=progress)
    scores = pair_scores(image_features.reshape(len(items), 2, -1), text_features.reshape(len(items), 2, -1))
    return WinogroundReport(
        overall=winoground_metrics(scores),
        by_collapsed_tag=metrics_by(scores, [item.collapsed_tag for item in items]),
        by_tag=metrics_by(scores, [item.tag for item in items]),
        scores=scores,
    )


def metrics_by(scores: Float[Tensor, "n 2 2"], tags: Sequence[str]) -> dict[str, WinogroundMetrics]:
    """Metrics of the items under each tag, in the tags' alphabetical order."""
    rows: dict[str, list[int]] = {}
    for row, tag in enumerate(tags):
        rows.setdefault(tag or UNTAGGED, []).append(row)
    return {tag: winoground_metrics(scores[rows[tag]]) for tag in sorted(rows)}


def read_winoground(path: str | Path, *, allow_missing: bool = False) -> list[WinogroundItem]:
    """Read a set as it is downloaded: the folder, or its `examples.jsonl` with `images/` beside it.

    Images may be PNG, JPEG, WebP or GIF, named by stem or by full name, with alpha or palette. With
    `allow_missing` an image that is not there gets the path that it should have, for who counts such items.

    Raises:
        EvaluationError: a file, an image or a field is missing, empty, doubled or of the wrong type.
    """
    examples = Path(path)
    if examples.is_dir():
        examples /= "examples.jsonl"
    if not examples.is_file():
        raise EvaluationError(
            f"{examples}: no such file; give the folder that holds examples.jsonl and images/."
        )
    records = [(number, _record(line, f"{examples}, line {number}")) for number, line in _lines(examples)]
    files = _images_by_name(examples.parent / "images")
    items: list[WinogroundItem] = []
    line_of: dict[str, int] = {}
    for number, record in records:
        item = _item(record, files, examples.parent / "images", f"{examples}, line {number}", allow_missing)
        if item.id in line_of:
            raise EvaluationError(
                f"{examples}, line {number}: id {item.id!r} is already on line {line_of[item.id]}; "
                "ids must be unique."
            )
        line_of[item.id] = number
        items.append(item)
    if not items:
        raise EvaluationError(f"{examples}: holds no items; download it again.")
    return items


def _lines(examples: Path) -> list[tuple[int, str]]:
    text = read_text(examples, EvaluationError)
    # Not splitlines(): a caption may hold U+2028, which JSON allows inside a string.
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _images_by_name(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder; the set's images belong there.")
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in _SUFFIXES:
            files.setdefault(file.stem, []).append(file)
            files.setdefault(file.name, []).append(file)
    return files


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise EvaluationError(
            f"{where}: is not JSON; every line must be one JSON object. Is it another benchmark's file?"
        ) from error
    if not isinstance(record, dict):
        raise EvaluationError(
            f"{where}: is not a JSON object with id, image_0, image_1, caption_0, caption_1; is it another "
            "benchmark's file?"
        )
    return record


def _item(
    record: dict[str, Any], files: dict[str, list[Path]], folder: Path, where: str, allow_missing: bool
) -> WinogroundItem:
    return WinogroundItem(
        id=_id(record, where),
        images=(
            _image(record, "image_0", files, folder, where, allow_missing),
            _image(record, "image_1", files, folder, where, allow_missing),
        ),
        captions=(text_of(record, "caption_0", where), text_of(record, "caption_1", where)),
        tag=_tag(record, "tag", where),
        secondary_tag=_tag(record, "secondary_tag", where),
        collapsed_tag=_tag(record, "collapsed_tag", where),
    )


def _id(record: dict[str, Any], where: str) -> str:
    value = record.get("id")
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise EvaluationError(f"{where}: `id` must be a number or a text, got {value!r}.")
    return str(value)


def _tag(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise EvaluationError(f"{where}: `{key}` must be a text or missing, got {value!r}.")
    return value or ""


def _image(
    record: dict[str, Any],
    key: str,
    files: dict[str, list[Path]],
    folder: Path,
    where: str,
    allow_missing: bool,
) -> Path:
    name = text_of(record, key, where)
    found = files.get(name, [])
    if not found and allow_missing:
        return folder / Path(name).name
    if not found:
        raise EvaluationError(
            f"{where}: `{key}` is {name!r}, and {folder} has no such file ({', '.join(_SUFFIXES)}); "
            "add the image or remove the line."
        )
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise EvaluationError(f"{where}: `{key}` is {name!r}, which could be {names}; keep one of them.")
    return found[0]


def _share(correct: Bool[Tensor, "n"]) -> float:
    return float(correct.double().mean())
