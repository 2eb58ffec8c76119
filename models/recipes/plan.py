"""What a comparison compares, as a YAML file says it."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from sds_clip.models.errors import ConfigError
from sds_clip.models.evaluation.catalog import resolve
from sds_clip.models.evaluation.request import EvaluationRequest
from sds_clip.models.recipes.recipe import OF_LENGTH, OF_PLAN, Recipe, recipe_of, renamed
from sds_clip.models.training.config import FinetuneConfig, Seed, config_error, needs_teacher, parse_config

PLANS = Path(__file__).parent / "plans"
BASE = "base"
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""The name of a recipe or of another model, which is also that of a folder."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BenchmarkData(_Part):
    """A benchmark's data, as `sds-clip evaluate` takes them."""

    data: str
    images: Path | None = None
    classes: str | None = None
    templates: str | None = None


def _as_mapping(given: object) -> object:
    """A list of names is a mapping of each to itself."""
    if not isinstance(given, list):
        return given
    if odd := [each for each in given if not isinstance(each, str)]:
        raise ValueError(
            f"A list has only names, and {odd[0]!r} is none. Write `name: {{...}}` for each, without a dash."
        )
    if len(set(given)) < len(given):
        raise ValueError("A recipe is there twice. Write `name: recipe` for each.")
    return dict(zip(given, given, strict=True))


def _with_data(given: object) -> object:
    return {"data": given} if isinstance(given, str) else given


class Plan(_Part):
    """The runs and measurements of a comparison."""

    base: str
    """Every recipe fine-tunes this model, given by its reference."""
    teacher: str | None = None
    """The teacher of those recipes that need one."""
    data: str
    """Every recipe trains on these pairs. With a service, this is a folder, an archive or the name of a data set, and
    so are `val` and the benchmarks' data."""
    images: Path | None = None
    val: str | None = None
    val_images: Path | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of all runs, by the names of `sds-clip finetune`."""
    recipes: Annotated[dict[Name, str | dict[str, Any]], BeforeValidator(_as_mapping), Field(min_length=1)]
    """The recipes: a list of names, or a name for each and, if it is not a shipped one's, its options."""
    control: str
    """The recipe that the others are compared with."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Every recipe is trained with each of these seeds, which decide which samples a step has, for all alike."""
    benchmarks: Annotated[
        dict[str, Annotated[BenchmarkData, BeforeValidator(_with_data)]], Field(min_length=1)
    ]
    """What every model is measured on: for each benchmark its data, or its options."""
    primary: str
    """The benchmark whose first figure is the primary outcome: GroupMatch if it has that, or its own primary figure."""
    look: Literal["validation", "held-out"] = "held-out"
    """Whether the benchmarks' data may still decide something (`validation`), or are looked at once (`held-out`)."""
    also: dict[Name, str] = Field(default_factory=dict)
    """References of further models that are measured, by name."""
    leave_out_shared: bool = False
    """Leave pairs out of training whose picture is in a benchmark."""
    gain: Annotated[float, Field(gt=0, lt=1)] = 0.03
    """The gain over the control that the comparison should be able to show, for the power that a dry run prints."""
    seed_deviation: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """The standard deviation of that gain over seeds, as a guess before the first run."""

    @model_validator(mode="after")
    def _belongs_together(self) -> "Plan":
        if self.control not in self.recipes:
            raise ValueError(f"The control {self.control!r} must be one of the recipes.")
        object.__setattr__(self, "benchmarks", {resolve(name): of for name, of in self.benchmarks.items()})
        object.__setattr__(self, "primary", resolve(self.primary))
        if self.primary not in self.benchmarks:
            raise ValueError(f"The primary outcome {self.primary!r} must be one of the benchmarks.")
        names = [*self.recipes, *self.also]
        runs = {f"{recipe}-{seed}" for recipe in self.recipes for seed in self.seeds}
        if taken := [name for name in names if name == BASE or name in runs or names.count(name) > 1]:
            raise ValueError(f"The name {taken[0]!r} stands for two models. Choose another one.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("A seed is there twice.")
        object.__setattr__(self, "options", renamed(self.options))
        if taken := sorted((OF_PLAN - OF_LENGTH) & self.options.keys()):
            raise ValueError(f"`options` must not have {', '.join(taken)}: it is no option of all runs.")
        return self

    @property
    def hash(self) -> str:
        """The SHA-256 of all that it says."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def recipe(self, name: str) -> Recipe:
        """Return a recipe with the options of its runs: its own in this plan, the shared ones, or those shipped.

        Raises ConfigError if a shared option is another one than that which makes the recipe what it is.
        """
        shipped, own = recipe_of(self.recipes[name])
        for option, value in shipped.options.items():
            if option not in own and self.options.get(option, value) != value:
                raise ConfigError(
                    f"`options` has {option}: {self.options[option]} for all, and the recipe {option}: {value}. Leave "
                    f"{option} out of `options`, or give it to those recipes that need another one."
                )
        return shipped.model_copy(update={"options": shipped.options | self.options | own})

    def arms(self) -> Iterator[tuple[str, int]]:
        """Yield recipes and seeds in the order of training: every recipe with a seed before the next seed."""
        return ((recipe, seed) for seed in self.seeds for recipe in self.recipes)

    def config(self, recipe: str, seed: int, **own: Any) -> FinetuneConfig:
        """Return the options of a run. Raises ConfigError."""
        fields = {name: value for name in ("images", "val", "val_images") if (value := getattr(self, name))}
        try:
            values = {
                "base": self.base,
                "data": self.data,
                **fields,
                **self.recipe(recipe).options,
                **own,
                "seed": seed,
            }
            config = FinetuneConfig.model_construct(**values)
            if needs_teacher(config.objective, config) and self.teacher is not None:
                values["teacher"] = self.teacher
            return parse_config(values)
        except ConfigError as error:
            raise ConfigError(f"{recipe}: {error}") from error

    def requests(self, model: str) -> dict[str, EvaluationRequest]:
        """Return the evaluations of a model, by benchmark. Raises ConfigError for options that do not fit one."""
        share = float(self.options.get("max_bad_share", 0.0))
        try:
            return {
                name: EvaluationRequest(
                    benchmark=name, model=model, max_bad_share=share, **of.model_dump(exclude_none=True)
                )
                for name, of in self.benchmarks.items()
            }
        except ValueError as error:
            raise ConfigError(str(error)) from error


def read_plan(values: dict[str, Any]) -> Plan:
    """Validate a plan. Raises ConfigError that names each wrong field, recipe or option."""
    try:
        plan = Plan.model_validate(values)
    except ValidationError as error:
        raise config_error(error, Plan) from error
    for recipe in plan.recipes:
        plan.config(recipe, plan.seeds[0])
    plan.requests(plan.base)
    return plan
