"""Training checkpoints: complete, verified folders. If the newest is broken, the one before is used."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sds_clip.models.atomic import atomic_folder
from sds_clip.models.errors import CheckpointTooLargeError, TrainingError
from sds_clip.models.files import sha256_of
from sds_clip.models.run_files import (
    DESCRIPTION_FILE,
    TENSORS_FILE,
    checkpoint_name,
    checkpoints_in,
    read_whole,
    unfinished_in,
)
from sds_clip.models.training.config import FinetuneConfig, meant_before

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run. `identity` is all that decides its weights; other runs' are refused."""

    folder: Path
    identity: dict[str, Any]
    keep: int
    before_saving: Callable[[int], None] = lambda size_bytes: None
    """Called with a checkpoint's size before one is written or removed. Its exceptions pass through."""
    max_bytes: int | None = None
    """Limit for the checkpoints and the files next to their folder. The one before stays during a save."""
    state: dict[str, float] = field(default_factory=dict)
    """What the losses have learnt from the steps. It is saved as it then is, and `restore` updates it."""

    def save(self, step: int, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Write the state after `step` steps, whole or not at all, and remove older ones beyond the bounds.

        Raises:
            CheckpointTooLargeError: it is larger than `max_bytes` allows.
            CheckpointError: the disk is full or the folder cannot be written; what was there is still there.
        """
        target = self.folder / checkpoint_name(step)
        tensors = _tensors(parameters, optimizer)
        size_bytes = sum(tensor.nbytes for tensor in tensors.values())
        for unfinished in list(unfinished_in(self.folder)):  # left by a run that was killed
            shutil.rmtree(unfinished)
        self.before_saving(size_bytes)
        # One of this step is broken, or the run would have begun from it. So nothing is lost with it.
        if target.exists():
            _discard(target)
        self._make_room(step, size_bytes)
        with atomic_folder(target) as working:
            save_file(tensors, working / TENSORS_FILE)
            sha256 = sha256_of(working / TENSORS_FILE)
            description = {"step": step, "sha256": sha256, "run": self.identity, "state": self.state}
            (working / DESCRIPTION_FILE).write_text(
                json.dumps(description, indent=2) + "\n", encoding="utf-8"
            )
        # Only once the new one is whole: a kill in between would leave neither.
        self._prune(step)

    def restore(self, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
        """Load the newest whole checkpoint, and return the number of steps it has done, or 0 without one.

        Raises:
            TrainingError: it belongs to another run, whose differences are named, or none of several is whole.
        """
        folders = self._all()
        for folder in reversed(folders):
            description = read_whole(folder)
            if description is not None:
                self._check(description["run"], folder)
                _restore(load_file(folder / TENSORS_FILE), parameters, optimizer)
                self.state.update(description.get("state", {}))  # a former release wrote none
                return int(description["step"])
        if folders:
            raise TrainingError(
                f"No checkpoint in {self.folder} is complete; remove that folder to start from the beginning."
            )
        return 0

    def _make_room(self, step: int, size_bytes: int) -> None:
        """Remove older ones to make room for a new one, but never the newest of them."""
        if self.max_bytes is None:
            return
        beside = _size_bytes(self.folder.parent)
        if beside + size_bytes > self.max_bytes:
            raise CheckpointTooLargeError(
                f"A checkpoint of this run has {size_bytes} bytes and its log has {beside}, but a job may "
                f"keep at most {self.max_bytes}. Train fewer parameters."
            )
        self._prune(step, size_bytes)

    def _prune(self, newest: int, wanted_bytes: int = 0) -> None:
        """Remove what is beyond the bounds.

        A checkpoint of a later step than `newest` is broken: this run started from one before it.
        """
        used = wanted_bytes + _size_bytes(self.folder.parent)
        kept: list[Path] = []
        for folder in reversed([folder for step, folder in checkpoints_in(self.folder) if step <= newest]):
            used += _size_bytes(folder)
            if len(kept) == self.keep or (kept and self.max_bytes is not None and used > self.max_bytes):
                break
            kept.append(folder)
        for other in self._all():
            if other not in kept:
                _discard(other)

    def _all(self) -> list[Path]:
        return [folder for _, folder in checkpoints_in(self.folder)]

    def _check(self, run: dict[str, Any], folder: Path) -> None:
        mine: dict[str, Any] = json.loads(json.dumps(self.identity))
        # Of an option that an earlier release did not have, its default is what that release did, with exceptions.
        options = FinetuneConfig.model_fields.items()
        run = {name: option.default for name, option in options if name in mine} | meant_before(run) | run
        other = [name for name in mine.keys() | run.keys() if mine.get(name) != run.get(name)]
        if other:
            changes = "; ".join(f"{name} {run.get(name)!r} -> {mine.get(name)!r}" for name in sorted(other))
            raise TrainingError(
                f"{folder} belongs to a run with other options or data: {changes}. Restore them, or use "
                "another --out."
            )


def _size_bytes(folder: Path) -> int:
    """Return the size of the files directly in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _discard(folder: Path) -> None:
    """Remove a checkpoint. It is hidden first, so that no half-removed one is ever seen."""
    hidden = folder.rename(folder.with_name(f".{folder.name}"))
    shutil.rmtree(hidden)


def _tensors(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in parameters.items():
        tensors[name] = parameter.detach().contiguous()
        for moment, value in optimizer.state[parameter].items():
            tensors[f"{name}|{moment}"] = value.contiguous()
    return tensors


def _restore(
    tensors: dict[str, Tensor], parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
            optimizer.state[parameter] = {
                moment: _placed(value, parameter)
                for moment in _MOMENTS
                if (value := tensors.get(f"{name}|{moment}")) is not None
            }


def _placed(moment: Tensor, parameter: nn.Parameter) -> Tensor:
    """As the fused kernel wants it: all on the device, the step too, and in the parameter's own layout."""
    if moment.shape != parameter.shape:
        return moment.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)
