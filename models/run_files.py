"""The files of a training run.

This module imports no torch, so that a supervisor and the service can use it.

    OUT/config.yaml
    OUT/log.jsonl
    OUT/run-id                                         the run's key in a tracker, if there is one
    OUT/checkpoints/step-00000200/state.safetensors    parameters and the optimizer's moments
    OUT/checkpoints/step-00000200/state.json           step, the run's identity, and the hash of state.safetensors
    OUT/report.html                                    curves, configuration and samples of a finished run
    OUT/delta                                          what a finished run has learned (checkpoints/delta_file.py)
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sds_clip.models.files import sha256_of

CONFIG_FILE, LOG_FILE, REPORT_FILE = "config.yaml", "log.jsonl", "report.html"
RUN_ID_FILE = "run-id"
CHECKPOINTS = "checkpoints"
TENSORS_FILE, DESCRIPTION_FILE = "state.safetensors", "state.json"

_STEP = "step-"


def checkpoint_name(step: int) -> str:
    return f"{_STEP}{step:08d}"


def checkpoints_in(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints, whole or not, with their steps, in the order of the steps."""
    named = [(path.name.removeprefix(_STEP), path) for path in folder.glob(f"{_STEP}*")]
    return sorted((int(number), path) for number, path in named if number.isdigit())


def unfinished_in(folder: Path) -> Iterator[Path]:
    """Yield what is left of checkpoints whose writing or removal was cut off."""
    return folder.glob(f".{_STEP}*")


def read_whole(checkpoint: Path) -> dict[str, Any] | None:
    """Return a checkpoint's description, or None if its files are not what was written."""
    try:
        description: dict[str, Any] = json.loads((checkpoint / DESCRIPTION_FILE).read_text(encoding="utf-8"))
        intact = description["sha256"] == sha256_of(checkpoint / TENSORS_FILE)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return description if intact else None
