"""Names of classes and templates: from files, from folders, or the sets that open_clip ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.evaluation.errors import EvaluationError
from models.evaluation.json_files import read_json
from models.files import read_text
from models.zero_shot import IMAGENET_LABELS, OPENAI_TEMPLATES, PLACES, SIMPLE_TEMPLATES

NAMED_CLASSES = {"imagenet": IMAGENET_LABELS}
NAMED_TEMPLATES = {
    "photo": ("a photo of a {}.",),
    "simple": SIMPLE_TEMPLATES,
    "openai": OPENAI_TEMPLATES,
}
"""`openai` is the 80 of CLIP's ImageNet notebook, `simple` the 7 that do nearly as well."""


def class_names(given: str | None, folders: Sequence[str] | None) -> tuple[str, ...]:
    """The classes' names in the order of their numbers.

    `given` is a named set, a text file with a name a line, or JSON: a list, or {"folder": "name"}. Without it the
    names are the folders', with `_` as a space. A list is in the order of the folders' names, sorted.

    Raises:
        EvaluationError: no such set or file, an empty name, or not one for each folder.
    """
    if given is None:
        return tuple(name.replace("_", " ").strip() for name in folders or ())
    names: object = NAMED_CLASSES.get(given)
    if names is None:
        names = _read(given, NAMED_CLASSES, '["name", ...] or {"folder": "name"}')
    if isinstance(names, dict):
        missing = [folder for folder in folders or () if folder not in names]
        if folders is None or missing:
            raise EvaluationError(f"{given}: names no class for {missing[:3] or 'numbered classes'}.")
        names = [names[folder] for folder in folders]
    found = _texts(names, given)
    if folders is not None and len(found) != len(folders):
        raise EvaluationError(
            f"{given}: has {len(found)} class names, and there are {len(folders)} folders; give one for each, in the "
            "order of the folders' names."
        )
    return found


def template_set(given: str | None) -> tuple[str, ...]:
    """Templates with {} or {c} for the label: a named set, a text file with one a line, or a JSON list.

    Without a name it is `photo`.

    Raises:
        EvaluationError: no such set or file, or a template has no place for the label.
    """
    name = given or "photo"
    templates = NAMED_TEMPLATES.get(name) or _texts(_read(name, NAMED_TEMPLATES, '["template", ...]'), name)
    for template in templates:
        if not any(place in template for place in PLACES):
            raise EvaluationError(f"{name}: the template {template!r} has no {{}} or {{c}} for the label.")
    return tuple(templates)


def _read(given: str, named: dict[str, tuple[str, ...]], layout: str) -> object:
    file = Path(given)
    if not file.is_file():
        raise EvaluationError(f"{given!r} is neither a file nor one of {', '.join(named)}.")
    if file.suffix.lower() == ".json":
        return read_json(file, layout)
    lines = read_text(file, EvaluationError).split("\n")
    while lines and not lines[-1].strip():  # lines after the last name; an empty one between is an error
        lines.pop()
    return [line.strip() for line in lines]


def _texts(values: object, given: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(
        isinstance(value, str) and value.strip() for value in values
    ):
        raise EvaluationError(f"{given}: must be a list of texts, none of them empty.")
    return tuple(values)
