"""A recipe: the options that make a run of `sds-clip finetune` a method of the literature."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from sds_clip.models.errors import ConfigError

LIBRARY = Path(__file__).parent / "library"
OF_LENGTH = frozenset({"steps", "epochs", "batch_size", "max_bad_share"})
OF_PLAN = OF_LENGTH | {
    *("base", "teacher", "data", "images", "val", "val_images", "data_format", "image_key", "caption_key"),
    *("separator", "seed", "device", "caption_cache"),
}
"""Options that a recipe must not have: the plan decides them for all, so that each sees the same samples in the same
order. Those of the length may stand among the plan's shared options."""


class Recipe(BaseModel):
    """A method, by its options."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    title: str = ""
    paper: str = ""
    """Where the method is from."""
    theirs: str = ""
    """What is its authors'."""
    ours: str = ""
    """What is not."""
    options: dict[str, Any] = {}
    """Options of `sds-clip finetune`."""


def names() -> list[str]:
    """Return the names of the recipes that ship."""
    return sorted(file.stem for file in LIBRARY.glob("*.yaml"))


def recipe_of(given: str | Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe that ships under a name, and further options: `given` is the name, or options beside `recipe`.

    Raises ConfigError for a name that does not exist, for an option that the plan decides, and without any method.
    """
    own = renamed({"recipe": given} if isinstance(given, str) else given)
    name = own.pop("recipe", None)
    if name is not None and name not in names():
        raise ConfigError(f"There is no recipe {name!r}. These ship: {', '.join(names())}.")
    if name is None and "objective" not in own:
        raise ConfigError("A recipe of one's own needs `recipe`, the name of one that ships, or `objective`.")
    if taken := sorted(OF_PLAN & own.keys()):
        raise ConfigError(
            f"A recipe must not have {', '.join(taken)}, which the plan decides for all of them alike."
        )
    return (Recipe() if name is None else _shipped(name)), own


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by the names of the configuration's fields. Raises ConfigError if one is there by two names."""
    named: dict[str, Any] = {}
    for given, value in options.items():
        name = "sds_weight" if given == "lambda" else str(given).replace("-", "_")
        if name in named:
            raise ConfigError(f"The option {name} is there twice, once as {given}.")
        named[name] = value
    return named


def _shipped(name: str) -> Recipe:
    return Recipe.model_validate(yaml.safe_load((LIBRARY / f"{name}.yaml").read_text(encoding="utf-8")))
