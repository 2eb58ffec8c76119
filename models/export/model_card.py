"""A model card: what an exported checkpoint is, where it comes from, how good it is, and how to load it.

It says only what is known. A licence, for example, is in none of the files that a checkpoint consists of.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from open_clip.pretrained import get_pretrained_cfg

from sds_clip.models.checkpoints.load import unfold
from sds_clip.models.checkpoints.published import is_architecture
from sds_clip.models.checkpoints.references import (
    DESCRIPTION_FILE,
    Folder,
    Hub,
    Published,
    Reference,
    WeightsFile,
    expanded,
)
from sds_clip.models.choices import ExportFormat
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError
from sds_clip.models.export.check import Agreement
from sds_clip.models.markdown import code, markdown_table
from sds_clip.models.pages import environment

CARD = "README.md"
# The options of a run that name folders or say how the machine was used.
_PRIVATE = frozenset(
    {"base", "teacher", "data", "images", "val", "val_images", "caption_cache", "device", "workers"}
)
_DATA = {
    "data_hash": "training data, SHA-256",
    "data_size": "training pairs",
    "teacher_version": "teacher's version",
    "vae_version": "VAE's version",
}


@dataclass(frozen=True)
class Figures:
    """The results of one evaluation of the exported version."""

    benchmark: str
    metrics: Mapping[str, Mapping[str, Any]]
    data_hash: str


def read_figures(file: Path, version: str) -> Figures:
    """Read a `results.json`.

    Raises CheckpointError if it cannot be read, or holds the results of another version.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        measured = str(content["provenance"]["model_version"])
        figures = Figures(
            str(content["benchmark"]), dict(content["metrics"]), str(content["provenance"]["data_hash"])
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} cannot be read as the results of an evaluation of a CLIP. Give a results.json that `sds-clip "
            "evaluate` wrote."
        ) from error
    if measured != version:
        raise CheckpointError(
            f"{file} has the results of version {measured[:12]}, but version {version[:12]} is exported. Give results "
            "of this version."
        )
    return figures


def figures_beside(reference: Reference, version: str) -> Iterator[Figures]:
    """Find the evaluations of this version in the folders beside a delta, as in `runs/mine/winoground`."""
    if not isinstance(reference, Folder):
        return
    for file in sorted(expanded(reference.path).resolve().parent.glob("*/results.json")):
        try:
            yield read_figures(file, version)
        except CheckpointError:  # those of another version
            continue


def write_card(
    folder: Path,
    clip: Clip,
    reference: Reference,
    name: str,
    format: ExportFormat,
    figures: Sequence[Figures],
    agreement: Agreement | None,
) -> None:
    """Write into a folder the card of a checkpoint that was exported from `reference`."""
    base, deltas = unfold(reference)
    chain = [base, *reversed(deltas)]
    text = _template().render(
        front_matter=_front_matter(reference, format),
        format=format,
        clip=clip,
        is_known=is_architecture(clip.architecture),
        facts=list(_facts(clip)),
        base=_named(base),
        runs=[_run(under, delta) for under, delta in zip(chain, reversed(deltas), strict=False)],
        figures=[row for of in figures for row in _rows(of)],
        agreement=agreement,
        folder=_in_a_string(name),
    )
    (folder / CARD).write_text(text, encoding="utf-8")


@cache
def _template() -> Template:
    texts = environment(Path(__file__).parent, is_html=False)
    texts.filters["code"] = code
    texts.globals["table"] = markdown_table
    return texts.get_template("card.md.jinja")


def _front_matter(reference: Reference, format: ExportFormat) -> str:
    base, deltas = unfold(reference)
    lines = [f"library_name: {format}", "pipeline_tag: zero-shot-image-classification"]
    if repository := _repository(base):
        lines.append(f"base_model: {json.dumps(repository)}")  # a string of JSON is one of YAML
        lines += ["base_model_relation: finetune"] * bool(deltas)
    return "\n".join(["---", *lines, "tags:", "  - clip", "  - sds-clip", "---"])


def name_of(reference: Reference) -> str:
    """Return the repository of a checkpoint, or else its name, without the folders of the machine that it was on."""
    return _repository(reference) or _named(reference)


def _repository(base: Reference) -> str | None:
    """Return the name of a base on the hub, if it has one."""
    match base:
        case Hub(repository):
            return repository
        case Published(architecture, tag):
            return str(get_pretrained_cfg(architecture, tag).get("hf_hub", "")).rstrip("/") or None
    return None


def _facts(clip: Clip) -> Iterator[tuple[str, object]]:
    preprocess = clip.identity.description["preprocess"]
    height, width = clip.image_size
    # A configuration that open_clip does not know has only its folder's name.
    if is_architecture(clip.architecture):
        yield "architecture", clip.architecture
    yield "version", code(clip.version)
    yield "parameters", f"{clip.parameters:,}"
    yield "embeddings", f"{clip.embed_dim} numbers"
    yield "QuickGELU", "yes" if clip.quick_gelu else "no"
    yield "images", f"{width} x {height} pixels, {preprocess['interpolation']}, {preprocess['resize_mode']}"
    yield "mean, standard deviation", f"{preprocess['mean']}, {preprocess['std']}"
    yield "texts", f"{clip.context_length} tokens"
    yield "logit scale", f"{clip.logit_scale:.6g}"
    if clip.logit_bias is not None:
        yield "logit bias", f"{clip.logit_bias:.6g}"


def _run(base: Reference, delta: Folder) -> dict[str, Any]:
    """Return what is known of a delta: facts, the run's options, and what it measured on its validation pairs."""
    about = json.loads((Path(delta.path) / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    options: Mapping[str, Any] = about.get("configuration") or {}
    data: Mapping[str, Any] = about.get("data") or {}
    metrics: Mapping[str, Any] = about.get("metrics") or {}
    facts: list[tuple[str, object]] = [
        ("base", code(_named(base))),
        ("base's version", code(about["base"]["version"])),
        ("fine-tuned version", code(about["version"])),
        ("tensors changed", len(about["trained"])),
    ]
    if delta.alpha is not None:
        blend = f"{1 - delta.alpha:g} of the base and {delta.alpha:g} of the fine-tuned weights"
        facts.append(("blended", blend))
    if options.get("teacher"):
        facts.append(("teacher", code(_without_folders(options["teacher"]))))
    facts += [(text, code(data[key])) for key, text in _DATA.items() if data.get(key) is not None]
    known = {key: value for key, value in options.items() if key not in _PRIVATE and value is not None}
    measured = [
        (code(name), _number(metrics.get(f"base_{name}")), _number(value))
        for name, value in metrics.items()
        if not name.startswith("base_")
    ]
    return {"facts": facts, "options": known and json.dumps(known, indent=1), "measured": measured}


def _named(reference: Reference) -> str:
    """Name a checkpoint without the folders of the machine that it was on."""
    match reference:
        case Folder(path):
            return expanded(path).resolve().name
        case WeightsFile(path, architecture):
            return f"{Path(path).name}@{architecture}"
    return str(reference)


def _in_a_string(name: str) -> str:
    """Escape a name for a string of Python's, so that it cannot leave its line, and with it its block of code."""
    return name.encode("unicode_escape").decode().replace('"', '\\"')


def _without_folders(name: str) -> str:
    return Path(name).name if name.startswith(("/", ".", "~")) else name


def _rows(figures: Figures) -> Iterator[tuple[str, ...]]:
    for name, metric in figures.metrics.items():
        value, low, high, chance = (
            "" if metric.get(key) is None else f"{100 * metric[key]:.1f}"
            for key in ("value", "low", "high", "chance")
        )
        shares = (value, f"{low} to {high}", chance, _number(metric.get("n")))
        yield code(figures.benchmark), code(name), *shares, code(figures.data_hash)


def _number(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}" if isinstance(value, float) else str(value) if isinstance(value, int) else code(value)
    )
