"""Zero-shot classification: acc1, acc5 and mean_per_class_recall, as CLIP_benchmark names them.

The layouts are one folder of images per class (torchvision's ImageFolder), CLIP_benchmark's WebDataset shards
(`class_shards.py`), or a table (`class_tables.py`). Classes and templates come from the data, from files, or from
open_clip's named sets.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sds_clip.models.clip.zero_shot import (
    LABEL_SETS,
    PLACES,
    TEMPLATE_SETS,
    class_weights,
    prompts,
)
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.annotations import read_json
from sds_clip.models.evaluation.benchmark import Benchmark, check_finite, outcome_of
from sds_clip.models.evaluation.class_shards import (
    CLASSNAMES,
    SPLIT,
    TEMPLATES,
    read_shard,
    shards_of,
)
from sds_clip.models.evaluation.class_tables import read_class_table
from sds_clip.models.evaluation.image_check import Say
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.metrics import mean_over_tags, share, shares_by_tag
from sds_clip.models.evaluation.results import ItemOutcome, Results
from sds_clip.models.evaluation.scorers import ClipScorer, Scorer, features_of
from sds_clip.models.files import read_text
from sds_clip.models.images.files import IMAGE_SUFFIXES
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tables import table_files

_SUFFIXES = (*IMAGE_SUFFIXES, ".ppm", ".bmp", ".pgm", ".tif", ".tiff")
"""torchvision's list, so that a file in a format that cannot be read is counted as unusable."""

NAMED_CLASSES = LABEL_SETS
NAMED_TEMPLATES = {"photo": ("a photo of a {}.",), **TEMPLATE_SETS}

_LAYOUT = (
    f"a folder with one subfolder for each class, or a folder with {CLASSNAMES} and {SPLIT}/N.tar, or a table"
)

_IMAGES = 1024  # images scored at once
_PROMPTS = 4096  # prompts in memory at once


@dataclass(frozen=True)
class ZeroShot(Benchmark):
    """Items of one image, whose `target` is the index of its class."""

    labels: tuple[str, ...]
    templates: tuple[str, ...]

    def measure(self, items: Sequence[Item], scorer: Scorer, say: Say) -> Results:
        """Score every image against every class. A class with an equal score ranks ahead."""
        clip = features_of(scorer)
        weights = self._class_weights(clip, say).double()
        outcomes: list[ItemOutcome] = []
        for start in range(0, len(items), _IMAGES):
            chunk = items[start : start + _IMAGES]
            features = clip.image_features([item.images[0] for item in chunk])
            # The logit scale is left out, since it is positive and changes no order.
            scores = (features.double() @ weights.T).float()
            check_finite(scores)
            margins = class_margins(scores, torch.tensor([item.target for item in chunk]))
            outcomes += [outcome_of(item, row) for item, row in zip(chunk, margins, strict=True)]
        by_class = shares_by_tag(outcomes, {"acc1": "acc1"}, self._chance)
        return Results(
            benchmark=self.name,
            primary="acc1",
            outcome="acc1",
            metrics={
                **{name: share(outcomes, name, self._chance) for name in outcomes[0].correct},
                "mean_per_class_recall": mean_over_tags(by_class, list(by_class), "acc1"),
            },
            by_tag=by_class,
            items=tuple(outcomes),
        )

    def _chance(self, _: ItemOutcome, name: str) -> float:
        return {"acc1": 1, "acc5": 5}[name] / len(self.labels)

    def _class_weights(self, clip: ClipScorer, say: Say) -> Float[Tensor, "c d"]:
        """Compute the classes' weights, with the prompts of a few classes at a time."""
        classes = max(1, _PROMPTS // len(self.templates))
        weights = []
        for start in range(0, len(self.labels), classes):
            texts = prompts(self.labels[start : start + classes], self.templates)
            clip.encode_texts(dict.fromkeys(texts), say)
            weights.append(class_weights(clip.text_features(texts), len(self.templates)))
        return torch.cat(weights)


def class_margins(scores: Float[Tensor, "n c"], targets: Tensor) -> list[dict[str, float]]:
    """Return each image's margins: its class's score minus the best other (acc1) or the fifth best (acc5).

    There is no acc5 with five classes or fewer.
    """
    own = scores.gather(1, targets[:, None]).double()
    others = scores.double().scatter(1, targets[:, None], -torch.inf)
    ranks = {"acc1": 1, "acc5": 5} if scores.shape[1] > 5 else {"acc1": 1}
    best = others.topk(max(ranks.values()), dim=1).values
    margins = {name: (own[:, 0] - best[:, rank - 1]).tolist() for name, rank in ranks.items()}
    return [{name: margins[name][row] for name in ranks} for row in range(len(scores))]


def zero_shot_benchmark(path: Path, *, classes: str | None = None, templates: str | None = None) -> ZeroShot:
    """Read a labelled set; see `class_names` and `template_set` for `classes` and `templates`.

    Raises:
        EvaluationError or DataError: another layout, an image whose class has no name, or fewer than two classes.
    """
    if tables := table_files(path):
        items, names = read_class_table(tables)
        if classes is None and names is None:
            raise EvaluationError(
                f"{path} numbers its classes and does not name them; give their names (classes)."
            )
        labels = class_names(classes, names)
    elif not path.is_dir():
        raise EvaluationError(f"There is no folder {path}. Give {_LAYOUT}.")
    elif (path / CLASSNAMES).is_file():
        labels = class_names(classes or str(path / CLASSNAMES), None)
        own = path / TEMPLATES
        templates = templates or (str(own) if own.is_file() else None)
        items = [item for shard in shards_of(path) for item in read_shard(shard)]
    else:
        folders = _class_folders(path)
        labels = class_names(classes, [folder.name for folder in folders])
        items = [
            Item(file.relative_to(path).as_posix(), (ImageRef(file),), target=target)
            for target, folder in enumerate(folders)
            for file in _images(folder)
        ]
    return _benchmark(path, items, labels, template_set(templates))


def _benchmark(
    path: Path, items: list[Item], labels: tuple[str, ...], templates: tuple[str, ...]
) -> ZeroShot:
    if len(labels) < 2:
        raise EvaluationError(
            f"The number of classes in {path} is {len(labels)}; classification needs at least 2. Is "
            "it the folder of another benchmark?"
        )
    if not items:
        raise EvaluationError(f"{path} contains no images.")
    doubled = Counter(labels)
    tags = [label if doubled[label] == 1 else f"{label} ({number})" for number, label in enumerate(labels)]
    for item in items:
        if item.target >= len(labels):
            raise EvaluationError(
                f"{path}: {item.id} has class number {item.target}, but there are only {len(labels)} class names; "
                "give the names of all classes."
            )
    settings = {
        "classes": len(labels),
        "templates": len(templates),
        "first_template": templates[0],
        "_labels": list(labels),
        "_templates": list(templates),
    }
    tagged = tuple(replace(item, tags=(tags[item.target],)) for item in items)
    return ZeroShot("zero-shot", tagged, settings, labels, templates)


def _class_folders(path: Path) -> list[Path]:
    folders = sorted(
        folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith(".")
    )
    if not folders:
        raise EvaluationError(f"{path} contains no folders. Give {_LAYOUT}.")
    return folders


def _images(folder: Path) -> list[Path]:
    """Return a class's images. Raises EvaluationError if there are none, as torchvision does."""
    found = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
    )
    if not found:
        raise EvaluationError(
            f"{folder} contains no images; every folder must be a class. Is it the folder of another "
            "benchmark?"
        )
    return found


def class_names(given: str | None, folders: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes' names in the order of their numbers.

    `given` is a named set, a text file with one name per line, or JSON: a list, or {"folder": "name"}. By
    default the names are those of the folders, or of a table's classes, with `_` as a space. A list is in the order
    of the sorted folder names, or of the numbers in a table.

    Raises:
        EvaluationError: no such set or file, an empty name, or not one for each folder.
    """
    if given is None:
        return tuple(name.replace("_", " ").strip() for name in folders or ())
    names: object = NAMED_CLASSES.get(given)
    if names is None:
        names = _read_names(given, NAMED_CLASSES, '["name", ...] or {"folder": "name"}')
    if isinstance(names, dict):
        missing = [folder for folder in folders or () if folder not in names]
        if folders is None or missing:
            raise EvaluationError(
                f"{given} gives no class name for {missing[:3] or 'numbered classes'}. Add the names."
            )
        names = [names[folder] for folder in folders]
    found = _texts(names, given)
    if folders is not None and len(found) != len(folders):
        raise EvaluationError(
            f"{given} has {len(found)} class names, but there are {len(folders)} classes. Give one "
            "name for each, in the order of the folders' names, or of the numbers in a table."
        )
    return found


def template_set(given: str | None) -> tuple[str, ...]:
    """Return templates with {} or {c} for the label.

    `given` is a named set (default: `photo`), a text file with one template per line, or a JSON list.

    Raises:
        EvaluationError: no such set or file, or a template without a place for the label.
    """
    name = given or "photo"
    templates = NAMED_TEMPLATES.get(name) or _texts(
        _read_names(name, NAMED_TEMPLATES, '["template", ...]'), name
    )
    for template in templates:
        if not any(place in template for place in PLACES):
            raise EvaluationError(f"{name}: the template {template!r} has no {{}} or {{c}} for the label.")
    return tuple(templates)


def _read_names(given: str, named: dict[str, tuple[str, ...]], layout: str) -> object:
    file = Path(given)
    if not file.is_file():
        raise EvaluationError(f"{given!r} is neither a file nor one of {', '.join(named)}.")
    if file.suffix.lower() == ".json":
        return read_json(file, layout)
    lines = read_text(file, EvaluationError).split("\n")
    while lines and not lines[-1].strip():  # empty lines after the last name; one between names is an error
        lines.pop()
    return [line.strip() for line in lines]


def _texts(values: object, given: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(
        isinstance(value, str) and value.strip() for value in values
    ):
        raise EvaluationError(f"{given} must be a list of texts, none of them empty.")
    return tuple(values)
