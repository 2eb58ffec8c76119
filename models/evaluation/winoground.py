"""Winoground: two images and two captions with the same words. Which belongs to which?

A set is a folder with `examples.jsonl`, one item per line, and `images/`, named by file stem:

    {"id": 0, "image_0": "ex_0_img_0", "image_1": "ex_0_img_1", "caption_0": "...", "caption_1": "...",
     "tag": "Relation", "secondary_tag": "", "num_main_preds": 1, "collapsed_tag": "Relation"}

The Hugging Face hub has the raw download: examples.jsonl and images.zip. A table with these columns, whose images are
cells, is read too: the hub's Parquet, or what `datasets` saved.
"""

import json
import shutil
import zipfile
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.atomic import atomic_folder
from sds_clip.models.errors import EvaluationError, quoted
from sds_clip.models.evaluation.annotations import Record, file_or_tables, read_json
from sds_clip.models.evaluation.benchmark import Benchmark, check_finite, outcome_of
from sds_clip.models.evaluation.image_check import Say
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.layouts import Layout
from sds_clip.models.evaluation.metrics import grouped_by_tag, share
from sds_clip.models.evaluation.results import GROUP_MATCH, ItemOutcome, Metric, Results
from sds_clip.models.evaluation.scorers import Scorer
from sds_clip.models.images.files import IMAGE_SUFFIXES
from sds_clip.models.images.ref import ImageRef

CHANCE = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6, GROUP_MATCH: 1 / 2}
"""The probability that random scores get an item right."""

OUTCOMES = {"text_score": "text", "image_score": "image", "group_score": "group", GROUP_MATCH: GROUP_MATCH}

NEW_TAGS = "new_tag_assignments.json"
"""{"id": [tags]}: the tags of Diwan et al., "Why is Winoground Hard?" (arXiv 2211.00768)."""

UNTAGGED = "untagged"

_TAGS = ("tag", "secondary_tag", "collapsed_tag")

HUB_ID = "facebook/winoground"
EXAMPLES, IMAGES = "data/examples.jsonl", "data/images.zip"

MAX_EXAMPLES_BYTES = 64 * 2**20
"""The limit on examples.jsonl, far more than the 400 lines that Winoground has: parsed, it takes many times as much."""

LAYOUT = Layout(
    words="an object with id, image_0, image_1, caption_0 and caption_1",
    keys=("id", "image_0", "image_1", "caption_0", "caption_1"),
    images=("image_0", "image_1"),
    captions=("caption_0", "caption_1"),
    columns=_TAGS,
    is_lines=True,
    max_bytes=MAX_EXAMPLES_BYTES,
)

_MAX_FILES, _MAX_BYTES = 10_000, 4 * 2**30
"""Limits on the hub's archive, far more than the 800 images that it holds."""


@dataclass(frozen=True)
class Winoground(Benchmark):
    """Items of two images and two captions; caption k describes image k."""

    primary: str = "group_score"

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say) -> Results:
        """Compute text, image and group score and GroupMatch: for each, the share of items that are right."""
        outcomes: list[ItemOutcome] = []
        for item, scores in zip(items, scorer.scores(items, say), strict=True):
            check_finite(scores)
            outcome = outcome_of(item, winoground_margins(scores))
            outcomes.append(replace(outcome, scores=tuple(tuple(row) for row in scores.tolist())))
        return Results(
            benchmark=self.name,
            primary=self.primary,
            outcome=OUTCOMES[self.primary],
            metrics=_shares(outcomes),
            by_tag={tag: _shares(tagged) for tag, tagged in grouped_by_tag(outcomes).items()},
            items=tuple(outcomes),
        )


def _shares(outcomes: Sequence[ItemOutcome]) -> dict[str, Metric]:
    found = {metric: share(outcomes, name, lambda _, name: CHANCE[name]) for metric, name in OUTCOMES.items()}
    prime = d_prime([item.margins[GROUP_MATCH] for item in outcomes])
    return found | {GROUP_MATCH: replace(found[GROUP_MATCH], d_prime=prime)}


def winoground_margins(scores: Float[Tensor, "2 2"]) -> dict[str, float]:
    """Return an item's margin in each outcome, from raw scores `scores[caption, image]`, never softmaxed.

    - text = min(s(c0,i0) - s(c1,i0), s(c1,i1) - s(c0,i1))
    - image = min(s(c0,i0) - s(c0,i1), s(c1,i1) - s(c1,i0))
    - group = min(text, image)
    - GroupMatch = s(c0,i0) + s(c1,i1) - s(c0,i1) - s(c1,i0) (arXiv 2510.07632)

    The item is right if its margin is above 0: a tie is wrong.
    """
    (c0i0, c0i1), (c1i0, c1i1) = scores.double().tolist()
    text = min(c0i0 - c1i0, c1i1 - c0i1)
    image = min(c0i0 - c0i1, c1i1 - c1i0)
    # Differences first: scores that do not depend on the caption, or on the image, then give exactly 0.
    match = (c0i0 - c1i0) + (c1i1 - c0i1)
    return {"text": text, "image": image, "group": min(text, image), GROUP_MATCH: match}


def d_prime(margins: Sequence[float]) -> float | None:
    """Return the margins' mean over their sample standard deviation (n - 1), or None if all are equal."""
    if all(margin == margins[0] for margin in margins):
        return None
    values = torch.tensor(margins, dtype=torch.float64)
    return float(values.mean() / values.std())


def winoground_benchmark(path: Path) -> Winoground:
    """Read a set as it is downloaded: the folder, or its `examples.jsonl` with `images/` next to it; or a table.

    Images may be PNG, JPEG, WebP or GIF, with alpha or palette, named by stem or by full name. A missing one
    gets the path that it should have, so that the check can count it. A `new_tag_assignments.json` next to
    `examples.jsonl` adds tags.

    Raises:
        EvaluationError or DataError: a file or a field is missing, empty, repeated or of the wrong type, or the
            tag file is not {"id": [tags]} of this set.
    """
    give = "the folder that contains examples.jsonl and images/"
    files, is_table = file_or_tables(path, "examples.jsonl", give)
    records = dict(LAYOUT.records(files, is_table=is_table))
    folder = files[0].parent / "images"
    named = {} if is_table else _images_by_name(folder)
    new_tags = _new_tags(files[0].parent / NEW_TAGS, set(map(str, records)))
    finer = any(_tag(record, "tag") != _tag(record, "collapsed_tag") for record in records.values())

    def tags(record: Record) -> list[str]:
        new = new_tags.get(str(record.values["id"]), ())
        return [*_tags(record, finer=finer), *(f"new: {tag}" for tag in new)]

    layout = replace(LAYOUT, image=partial(_image, files=named), tags=tags)
    return Winoground("winoground", layout.items(records.items(), folder), {})


def _tags(record: Record, *, finer: bool) -> list[str]:
    """Return the collapsed tag unchanged, and the finer ones with their kind as a prefix: `Relation` occurs as both."""
    fine, secondary, collapsed = (_tag(record, key) for key in _TAGS)
    tags = [collapsed or UNTAGGED]
    if fine and finer:
        tags.append(f"tag: {fine}")
    if secondary:
        tags.append(f"secondary: {secondary}")
    return tags


def _tag(record: Record, key: str) -> str:
    value = record.values.get(key)
    if value is not None and not isinstance(value, str):
        raise EvaluationError(
            f"{record.where}: `{key}` must be a text or missing; its value is {quoted(value)}."
        )
    return value or ""


def _new_tags(file: Path, ids: Set[str]) -> dict[str, list[str]]:
    if not file.is_file():
        return {}
    content = read_json(file, '{"id": [tags]}')
    if not isinstance(content, dict) or not all(
        isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) for tags in content.values()
    ):
        raise EvaluationError(f'{file} must be {{"id": [tags]}}, a list of texts for every id.')
    unknown = sorted(content.keys() - ids)
    if unknown:
        raise EvaluationError(
            f"{file} has tags for {json.dumps(unknown[0])}, but the set has no such item. The file "
            "belongs to another set."
        )
    return content


def _images_by_name(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise EvaluationError(f"There is no folder {folder}; put the images of the set there.")
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            files.setdefault(file.stem, []).append(file)
            files.setdefault(file.name, []).append(file)
    return files


def _image(record: Record, key: str, folder: Path, files: dict[str, list[Path]]) -> ImageRef:
    if isinstance(record.values.get(key), ImageRef):
        return record.image(key, folder)
    name = record.text(key)
    found = files.get(name) or [folder / Path(name).name]
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise EvaluationError(
            f"{record.where}: `{key}` is {name!r}, and several files have this name: {names}; keep one of them."
        )
    return ImageRef(found[0])


def download_winoground(folder: Path) -> Path:
    """Download the set into `folder` if it is not there, and return the folder.

    The set is gated: its terms must be accepted on the hub.

    Raises:
        EvaluationError: no network, no access, or another layout of the repository.
    """
    if (folder / "examples.jsonl").is_file():
        return folder
    from huggingface_hub import hf_hub_download

    try:
        examples = hf_hub_download(HUB_ID, EXAMPLES, repo_type="dataset")
        images = hf_hub_download(HUB_ID, IMAGES, repo_type="dataset")
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EvaluationError(
            f"{HUB_ID} cannot be downloaded ({type(error).__name__}: {reason}). Connect to the "
            f"network, accept the terms at https://huggingface.co/datasets/{HUB_ID}, and set a token "
            f"(HF_TOKEN). Or download {EXAMPLES} and images.zip by hand, unpack the images into "
            f"images/ next to {EXAMPLES}, and give that folder."
        ) from error
    unpack_winoground(Path(examples), Path(images), folder)
    return folder


def unpack_winoground(examples: Path, images: Path, folder: Path) -> None:
    """Lay out the raw download for `winoground_benchmark`. The folder appears whole or not at all.

    Raises:
        EvaluationError: the archive is damaged or too large.
        CheckpointError: the folder exists or cannot be written, or two images have one name.
    """
    with atomic_folder(folder) as made:
        (made / "images").mkdir()
        try:
            with zipfile.ZipFile(images) as archive:
                _unpack(archive, made / "images", images)
        except zipfile.BadZipFile as error:
            raise EvaluationError(f"{images} is not a complete zip file; delete it and try again.") from error
        shutil.copyfile(examples, made / "examples.jsonl")


def _unpack(archive: zipfile.ZipFile, folder: Path, source: Path) -> None:
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > _MAX_FILES or sum(member.file_size for member in members) > _MAX_BYTES:
        raise EvaluationError(
            f"{source} contains more than Winoground does, so it is another archive. Download "
            "images.zip again."
        )
    for member in members:
        name = PurePosixPath(member.filename)
        # Only the last part of a name is used, which cannot lead anywhere. Files that desktops add are
        # skipped.
        if name.name.startswith(".") or "__MACOSX" in name.parts:
            continue
        with archive.open(member) as content, (folder / name.name).open("xb") as file:
            shutil.copyfileobj(content, file)
