"""Checkpoints of the demo's training runs: replaced atomically, and read back only by the same recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from sds_clip.models.atomic import atomic_file


class Recipe(Protocol):
    """A frozen dataclass that determines a run's result."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int:
        """Length of the run."""

    def decays_at(self, step: int) -> bool:
        """Whether the learning rate of `step` already depends on the number of steps."""


class Part(Protocol):
    """A network, an optimizer or a schedule."""

    def state_dict(self) -> Any:
        """Return its tensors and numbers."""

    def load_state_dict(self, state_dict: Any) -> Any:
        """Restore them."""


def save_checkpoint(path: Path, recipe: Recipe, step: int, seconds: float, parts: Mapping[str, Part]) -> None:
    """Replace the checkpoint atomically, so that a kill leaves either the old or the new one."""
    state = {name: part.state_dict() for name, part in parts.items()}
    with atomic_file(path) as unfinished:
        torch.save({**state, "step": step, "seconds": seconds, "recipe": asdict(recipe)}, unfinished)


def resume(path: Path, recipe: Recipe, parts: Mapping[str, Part]) -> tuple[int, float]:
    """Restore the parts from the checkpoint; returns steps done and seconds taken, 0 without a checkpoint.

    A run can be lengthened or shortened as long as its learning rate does not depend on its length.

    Raises:
        ValueError: the checkpoint's recipe differs in more than its steps, or has more steps done, or differs
            in its steps after the rate has begun to fall.
    """
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True)
    if state["recipe"] | {"steps": recipe.steps} != asdict(recipe):
        raise ValueError(f"{path} is of another recipe: {state['recipe']}; remove it or use another folder.")
    done, before = state["step"], replace(recipe, steps=state["recipe"]["steps"])
    if recipe.steps < done:
        raise ValueError(
            f"{path} has {done} steps done, more than {recipe.steps}; train at least {done} steps."
        )
    if recipe.steps != before.steps and before.decays_at(done - 1):
        raise ValueError(
            f"{path} is {done} steps into a run of {before.steps} steps, whose learning rate falls already. Continue "
            f"with {before.steps} steps, or remove the file to train {recipe.steps}."
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return done, state["seconds"]


def seconds_trained(path: Path) -> float:
    """Seconds of training in a checkpoint's run, over all its starts."""
    seconds: float = torch.load(path, weights_only=True)["seconds"]
    return seconds


def log(work_dir: Path, record: dict[str, float]) -> None:
    work_dir.mkdir(parents=True, exist_ok=True)
    line = json.dumps(record)
    print(line, flush=True)
    with (work_dir / "log.jsonl").open("a") as file:
        file.write(line + "\n")
