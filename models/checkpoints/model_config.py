"""Read the configuration file of open_clip's folders without filling anything in."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from sds_clip.models.errors import CheckpointError

CONFIG_FILE = "open_clip_config.json"
STATED = ("mean", "std", "interpolation", "resize_mode")
"""What a `preprocess_cfg` must state: open_clip would fill in its own defaults for any of these."""


def read_config(file: Path) -> tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]:
    """Return `model_cfg`, `preprocess_cfg` and `matryoshka_dimensions`.

    The last says to which lengths an embedding may be cut (arXiv 2205.13147). It is empty for most models.

    Raises CheckpointError if the file is missing, is not JSON, or describes no model.
    """
    if not file.is_file():
        raise CheckpointError(
            f"The folder {file.parent} has no {CONFIG_FILE}. That file says which architecture and preprocessing "
            "the weights need. Choose a folder that has it, or make one with `sds-clip convert`."
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        config, preprocess = content["model_cfg"], content.get("preprocess_cfg") or {}
        complete = all(key in config for key in ("embed_dim", "vision_cfg", "text_cfg"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as open_clip's configuration: {error}.") from error
    if not complete or not isinstance(preprocess, dict):
        raise CheckpointError(f"{file}: model_cfg needs embed_dim, vision_cfg and text_cfg.")
    return deepcopy(config), dict(preprocess), _dimensions(content, file)


def _dimensions(content: dict[str, Any], file: Path) -> tuple[int, ...]:
    stated = content.get("matryoshka_dimensions") or []
    full = content["model_cfg"]["embed_dim"]
    if not isinstance(stated, list) or not all(type(each) is int and 0 < each <= full for each in stated):
        raise CheckpointError(
            f"{file}: matryoshka_dimensions is {stated!r}; write a list of numbers from 1 to {full}."
        )
    return tuple(sorted(set(stated)))


def checked_preprocess(preprocess: dict[str, Any], config: dict[str, Any], where: str) -> dict[str, Any]:
    """Check a stated preprocessing, and return it as stated. `where` names its origin in messages.

    Raises CheckpointError if a piece is missing, unknown, or contradicts the model.
    """
    missing = [key for key in STATED if preprocess.get(key) is None]
    if missing:
        raise CheckpointError(
            f"{where} does not state preprocess_cfg.{', preprocess_cfg.'.join(missing)}. A wrong "
            "guess would change every score without an error, so add them (usual values are "
            '"interpolation": "bicubic", "resize_mode": "shortest" and OpenAI\'s mean and std).'
        )
    allowed = {
        "interpolation": ("bicubic", "bilinear", "random"),
        "resize_mode": ("shortest", "longest", "squash"),
    }
    for key, values in allowed.items():
        if preprocess[key] not in values:
            raise CheckpointError(
                f"{where}: preprocess_cfg.{key} is {preprocess[key]!r}; use {', '.join(values)}."
            )
    if preprocess.get("mode", "RGB") != "RGB":
        raise CheckpointError(
            f"{where}: preprocess_cfg.mode is {preprocess['mode']!r}; only RGB is supported."
        )
    size, expected = preprocess.get("size"), config["vision_cfg"].get("image_size", 224)
    if size is not None and size_pair(size) != size_pair(expected):
        raise CheckpointError(
            f"{where} contradicts itself: preprocess_cfg.size is {size}, but vision_cfg.image_size is "
            f"{expected}."
        )
    return {"fill_color": preprocess.get("fill_color", 0), **{key: preprocess[key] for key in STATED}}


def size_pair(size: Any) -> tuple[int, int]:
    """Return height and width from one number for both, or from two."""
    return (size, size) if isinstance(size, int) else (size[0], size[-1])
