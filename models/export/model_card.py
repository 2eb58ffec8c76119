"""A model card: what an exported checkpoint is, where it comes from, how good it is, and how to load it.

It says only what is known. A licence, for example, is in none of the files that a checkpoint consists of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from sds_clip.models.export.model_card_texts import LIBRARIES, LIMITS, LOADING, WHAT_IT_IS
from sds_clip.models.markdown import code, markdown_table

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
    parts = [
        _front_matter(reference, format),
        f"# {clip.architecture if is_architecture(clip.architecture) else 'CLIP'}, version {clip.version[:12]}",
        WHAT_IT_IS[format],
        _facts(clip),
        *_lineage(reference),
        *_figures(figures),
        *_agreement(agreement),
        "## Load it",
        LOADING[format].replace("FOLDER", _in_a_string(name)),
        "## Limits",
        LIMITS[format],
    ]
    (folder / CARD).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _front_matter(reference: Reference, format: ExportFormat) -> str:
    base, deltas = unfold(reference)
    lines = [f"library_name: {LIBRARIES[format]}", "pipeline_tag: zero-shot-image-classification"]
    if repository := _repository(base):
        lines.append(f"base_model: {json.dumps(repository)}")  # a string of JSON is one of YAML
        lines += ["base_model_relation: finetune"] * bool(deltas)
    return "\n".join(["---", *lines, "tags:", "  - clip", "  - sds-clip", "---"])


def _repository(base: Reference) -> str | None:
    """Return the name of a base on the hub, if it has one."""
    match base:
        case Hub(repository):
            return repository
        case Published(architecture, tag):
            return str(get_pretrained_cfg(architecture, tag).get("hf_hub", "")).rstrip("/") or None
    return None


def _facts(clip: Clip) -> str:
    preprocess = clip.identity.description["preprocess"]
    height, width = clip.image_size
    # A configuration that open_clip does not know has only its folder's name.
    named = [("architecture", clip.architecture)] if is_architecture(clip.architecture) else []
    rows = [
        *named,
        ("version", code(clip.version)),
        ("parameters", f"{clip.parameters:,}"),
        ("embeddings", f"{clip.embed_dim} numbers"),
        ("QuickGELU", "yes" if clip.quick_gelu else "no"),
        ("images", f"{width} x {height} pixels, {preprocess['interpolation']}, {preprocess['resize_mode']}"),
        ("mean, standard deviation", f"{preprocess['mean']}, {preprocess['std']}"),
        ("texts", f"{clip.context_length} tokens"),
        ("logit scale", f"{clip.logit_scale:.6g}"),
    ]
    if clip.logit_bias is not None:
        rows.append(("logit bias", f"{clip.logit_bias:.6g}"))
    return markdown_table(("", ""), rows, text=None)


def _lineage(reference: Reference) -> Iterator[str]:
    base, deltas = unfold(reference)
    yield "## Lineage"
    if not deltas:
        yield f"These are the weights of {code(_named(base))}, unchanged."
    for delta in reversed(deltas):
        about = json.loads((Path(delta.path) / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        options: Mapping[str, Any] = about.get("configuration") or {}
        data: Mapping[str, Any] = about.get("data") or {}
        rows = [
            ("base", code(_named(base))),
            ("base's version", code(about["base"]["version"])),
            ("fine-tuned version", code(about["version"])),
            ("tensors changed", len(about["trained"])),
        ]
        if delta.alpha is not None:
            rows.append(
                ("blended", f"{1 - delta.alpha:g} of the base and {delta.alpha:g} of the fine-tuned weights")
            )
        if options.get("teacher"):
            rows.append(("teacher", code(_without_folders(options["teacher"]))))
        rows += [(text, code(data[key])) for key, text in _DATA.items() if data.get(key) is not None]
        yield markdown_table(("", ""), rows, text=None)
        known = {key: value for key, value in options.items() if key not in _PRIVATE and value is not None}
        if known:
            yield f"The run's options:\n\n```json\n{json.dumps(known, indent=1)}\n```"
        base = delta
        yield from _validation(about.get("metrics") or {})


def _validation(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the run measured after its last step, on its validation pairs."""
    rows = [
        (code(name), _number(metrics.get(f"base_{name}")), _number(value))
        for name, value in metrics.items()
        if not name.startswith("base_")
    ]
    if rows:
        yield "The run measured these after its last step, without intervals:"
        yield markdown_table(("", "base", "fine-tuned"), rows)


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


def _figures(figures: Sequence[Figures]) -> Iterator[str]:
    rows = [
        (code(of.benchmark), code(name), *_cells(metric), code(of.data_hash))
        for of in figures
        for name, metric in of.metrics.items()
    ]
    if rows:
        header = ("benchmark", "figure", "%", "95 % interval", "chance", "items", "data, SHA-256")
        yield "## Figures"
        yield markdown_table(header, rows, text=(0, 1, 6))


def _cells(metric: Mapping[str, Any]) -> tuple[str, str, str, str]:
    value, low, high, chance = (
        "" if metric.get(key) is None else f"{100 * metric[key]:.1f}"
        for key in ("value", "low", "high", "chance")
    )
    return value, f"{low} to {high}", chance, _number(metric.get("n"))


def _number(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}" if isinstance(value, float) else str(value) if isinstance(value, int) else code(value)
    )


def _agreement(agreement: Agreement | None) -> Iterator[str]:
    if agreement is not None:
        yield "## Checked"
        yield (
            "When this folder was written, it was loaded again, and encoded pictures and texts in float32. The "
            f"smallest cosine with the embeddings of the original was {agreement.image:.7f} for images and "
            f"{agreement.text:.7f} for texts."
        )
