"""The folder of a delta: the tensors that differ from a base, the base's identity, and how to check a reload.

The files:

    sds_clip_delta.json    the base, and how the delta was made
    delta.safetensors      the tensors in float32, under the base's names
    golden.safetensors     the tuned network's embeddings of inputs made from a seed (`sds_clip.models.clip.golden`)
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load, save_file
from torch import Tensor

from sds_clip.models.checkpoints.references import (
    DESCRIPTION_FILE,
    Folder,
    Reference,
    WeightsFile,
    expanded,
    parse,
)
from sds_clip.models.clip.golden import SEED, Golden
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError, first_line

TENSORS_FILE = "delta.safetensors"
GOLDEN_FILE = "golden.safetensors"
FORMAT = 1


class DeltaError(CheckpointError):
    """A delta cannot be read, belongs to another base, or does not give the results it should."""

    code: ClassVar[str] = "bad_delta"


@dataclass(frozen=True)
class Description:
    """The parts of a delta's description that a program needs; the rest of the file is for people."""

    base: str
    """The base's reference; see `base_of`."""
    base_version: str
    version: str
    """The version of the base with the delta applied."""
    trained: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class Delta:
    """A delta as its folder holds it. It has been checked by itself but not against its base."""

    folder: Path
    about: Description
    tensors: Mapping[str, Tensor]
    golden: Golden


def base_of(folder: Path) -> Reference:
    """Return the reference of a delta's base.

    A relative path in the description starts at the delta's folder. Raises DeltaError if the description
    cannot be read.
    """
    return _at(folder, read_description(folder).base)


def write_delta(
    folder: Path,
    base: Clip,
    version: str,
    tensors: Mapping[str, Tensor],
    golden: Golden,
    history: Mapping[str, Any],
) -> None:
    """Write a delta's files into an empty folder.

    Raises DeltaError if the history (configuration, data, metrics) is not JSON.
    """
    content = {
        "format": FORMAT,
        "version": version,
        "base": {
            "reference": str(_at(Path.cwd(), base.reference)),
            "version": base.version,
            "architecture": base.architecture,
            "quick_gelu": base.quick_gelu,
        },
        **base.identity.description,
        "trained": sorted(tensors),
        **history,
        "golden": {"seed": SEED},
    }
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DeltaError(
            f"The history cannot be written as JSON to {DESCRIPTION_FILE}: {first_line(error)}."
        ) from error
    (folder / DESCRIPTION_FILE).write_text(text + "\n", encoding="utf-8")
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, folder / TENSORS_FILE)
    save_file(
        {"image_features": golden.image_features, "text_features": golden.text_features},
        folder / GOLDEN_FILE,
    )


def read_delta(folder: Path) -> Delta:
    """Read a delta's folder.

    Raises DeltaError if a file is missing, damaged or of an unknown format, or holds anything but finite
    float32 tensors under the names that the description lists.
    """
    about = read_description(folder)
    tensors, features = _read(folder / TENSORS_FILE), _read(folder / GOLDEN_FILE)
    if tensors.keys() != set(about.trained) or features.keys() != {"image_features", "text_features"}:
        raise DeltaError(
            f"{folder} does not have the tensors that {DESCRIPTION_FILE} lists, so its files were "
            "changed. Copy the folder again."
        )
    return Delta(folder, about, tensors, Golden(seed=about.seed, **features))


def read_description(folder: Path) -> Description:
    """Read a delta's description.

    Raises DeltaError if it is missing, damaged or of an unknown format.
    """
    file = folder / DESCRIPTION_FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DeltaError(
                f"format {content['format']!r} is not {FORMAT}, the only one that this program knows"
            )
        return Description(
            base=str(content["base"]["reference"]),
            base_version=str(content["base"]["version"]),
            version=str(content["version"]),
            trained=tuple(map(str, content["trained"])),
            seed=int(content["golden"]["seed"]),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DeltaError(
            f"{file} cannot be read as a delta's description ({_reason(error)}). Copy it again, or "
            "use the version of this program that wrote it."
        ) from error


def _read(file: Path) -> dict[str, Tensor]:
    try:
        # Not `load_file`: safetensors 0.8 loses two integers for each tensor that it reads that way, and a service
        # reads deltas for as long as it lives.
        tensors = load(file.read_bytes())
    except Exception as error:
        raise DeltaError(
            f"{file} cannot be read ({_reason(error)}). It may be incomplete: copy it again."
        ) from error
    for name, value in tensors.items():
        if value.dtype is not torch.float32 or not value.isfinite().all():
            raise DeltaError(
                f"In {file}, {name} is not finite float32. Training diverged, or the file is damaged. Use "
                "an earlier checkpoint."
            )
    return tensors


def _at(folder: Path, reference: str) -> Reference:
    """Parse a reference, resolving a relative path in it against `folder`."""
    parsed = parse(reference)
    if isinstance(parsed, Folder | WeightsFile):
        path = expanded(parsed.path)
        # Resolve links in `folder` first: the parent of a linked folder is not the parent of the link.
        whole = path if path.is_absolute() else os.path.normpath(folder.resolve() / path)
        return replace(parsed, path=str(whole))
    return parsed


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"
