"""What commands share: help, options, and the settings and model they need."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sds_clip.extras import require_extra
from sds_clip.table import say

if TYPE_CHECKING:
    from pydantic import ValidationError

    from sds_clip.app.settings import Settings
    from sds_clip.models.clip.model import Clip
    from sds_clip.models.images.decode import ImageLimits
    from sds_clip.worker.config import WorkerConfig

Function = TypeVar("Function", bound=Callable[..., Any])
Read = TypeVar("Read", "Settings", "WorkerConfig")
Decorator = Callable[[Function], Function]

_CONTEXT = {"max_content_width": 200, "show_default": True, "help_option_names": ["-h", "--help"]}
_REFERENCES = """\
\b
A reference (REF) names a model:
demo                           the small model that ships with this package
ViT-B-32/openai                an architecture and a tag of open_clip
hf-hub:ORG/REPO                a repository of the Hugging Face hub
local-dir:DIR                  a folder in open_clip's layout, or a fine-tuned delta
local-dir:DIR#alpha=0.5        weights halfway between a delta's base and the delta
PATH.safetensors@ARCHITECTURE  a file of weights
"""
_MEANT = {
    "--learning-rate": "--lr",
    "--wd": "--weight-decay",
    "--max-steps": "--steps",
    "--num-train-epochs": "--epochs",
    "--train-batch-size": "--batch-size",
    "--max-grad-norm": "--max-gradient-norm",
    "--train-data": "--data",
    "--val-data": "--val",
    "--model": "--base",
    "--output-dir": "--out",
}
"""What open_clip, transformers and diffusers call some options, and we. click suggests only what is spelled alike."""


class Option(click.Option):
    """An option shown in its section of the help. A greedy one takes all words up to the next option."""

    def __init__(
        self, names: Sequence[str], *, section: str = "Options", greedy: bool = False, **attributes: Any
    ) -> None:
        super().__init__(names, multiple=attributes.pop("multiple", greedy), **attributes)
        self.section = section
        self.greedy = greedy


class Command(click.Command):
    """A command whose help groups options by section and shows examples verbatim.

    It needs the package's extra `extra`, unless `extra` is empty, or a service at --url does the work.
    """

    def __init__(
        self, *, extra: str = "", examples: str = "", references: bool = False, **attributes: Any
    ) -> None:
        super().__init__(no_args_is_help=False, context_settings=_CONTEXT, **attributes)
        self.extra, self.examples, self.references = extra, examples, references

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, if its extra is installed."""
        if self.extra and ctx.params.get("url") is None:
            require_extra(self.extra, ctx.command_path)
        return super().invoke(ctx)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, after rewriting `--label cat dog` to `--label cat --label dog`."""
        greedy = {
            name
            for option in self.get_params(ctx)
            if isinstance(option, Option) and option.greedy
            for name in option.opts
        }
        try:
            return super().parse_args(ctx, list(_one_value_each(args, greedy)) if greedy else args)
        except click.NoSuchOption as error:
            dashed = error.option_name.replace("_", "-")
            meant = _MEANT.get(dashed, dashed)
            if not any(meant in each.opts for each in self.get_params(ctx)):
                raise
            raise click.UsageError(f"{error.message} Did you mean {meant!r}?", ctx) from error
        except click.MissingParameter as error:
            if not any(word.partition("=")[0] in greedy for word in args):
                raise
            advice = "Write it before the options, or after `--`."
            raise click.MissingParameter(advice, error.ctx, error.param) from error

    def get_help(self, ctx: click.Context) -> str:
        """The help with bold headings; click strips the style when the output is not a terminal."""
        return re.sub(
            r"^\S.*:$", lambda heading: click.style(heading[0], bold=True), super().get_help(ctx), flags=re.M
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section for each of the options' sections, in order of declaration."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if isinstance(parameter, click.Option) and record is not None:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """How models are named, and examples: the command's own, or its group's."""
        examples = self.examples or getattr(ctx.parent and ctx.parent.command, "examples", "")
        for title, text in (
            ("Models", _REFERENCES * self.references),
            ("Examples", examples and f"\b\n{examples}"),
        ):
            if text:
                with formatter.section(title):
                    formatter.write_text(text.rstrip())


class Group(Command, click.Group):
    """A group of commands with the same kind of help."""

    command_class = Command

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def _one_value_each(words: Sequence[str], greedy: set[str]) -> Iterator[str]:
    taking: str | None = None
    rest = iter(words)
    for word in rest:
        if word == "--":
            yield from (word, *rest)
        elif word.startswith("-") and len(word) > 1 and " " not in word:  # not a text like "- a dash"
            taking = word if word in greedy else None
            if taking is None:
                yield word
        else:
            if taking is not None:
                yield taking
            yield word


command = partial(click.command, cls=Command)
group: Callable[..., Callable[[Callable[..., Any]], Group]] = partial(click.group, cls=Group)
option = partial(click.option, cls=Option)


def together(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Combine several options into one decorator."""
    return lambda function: reduce(lambda decorated, each: each(decorated), reversed(decorators), function)


class _Worded(click.ParamType[Any]):
    """A click type that refuses a value in words, without click's formula for a range (x>=1)."""

    def __init__(self, kind: click.ParamType[Any], meaning: str) -> None:
        self.name = kind.name
        self._kind = kind
        self._meaning = meaning

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as the type does."""
        try:
            return self._kind.convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is not {self._meaning}.", param, ctx)


PATH = click.Path(path_type=Path)

folder_option = partial(option, type=PATH, metavar="DIR")
file_option = partial(option, type=PATH, metavar="FILE")
number_option = partial(
    option, type=_Worded(click.IntRange(min=1), "a whole number of at least 1"), metavar="N"
)
share_option = partial(option, type=_Worded(click.FloatRange(0, 1), "a number from 0 to 1"), metavar="SHARE")
wait_option = option(
    "--wait",
    "wait_s",
    type=_Worded(click.FloatRange(0, 300), "a number of seconds from 0 to 300"),
    metavar="SECONDS",
    help="Wait at most this long until every live serving process serves the version. The exit code is 1 if one "
    "does not.",
)
json_option = option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

COMPUTATION = "Computation"
compute_option = partial(option, section=COMPUTATION)
device_option = compute_option(
    "--device",
    metavar="DEVICE",
    help="Compute on this device: auto, cpu, cuda or cuda:N (default: auto, or SDS_CLIP_DEVICE).",
)
compute_options = together(
    device_option,
    compute_option(
        "--precision",
        metavar="FORMAT",
        help="Compute in this format: float32, bfloat16, float16 or auto. With auto, bfloat16 is used if the "
        "hardware supports it. Unless it is float32, large JPEGs are decoded at a smaller size; +full or +scaled after "
        "the format, such as bfloat16+full, chooses (default: auto, or SDS_CLIP_PRECISION).",
    ),
)
model_options = together(
    option("--model", metavar="REF", help="Use this model (default: demo, or the first of SDS_CLIP_MODELS)."),
    compute_options,
)
data_dir_option = folder_option(
    "--data-dir",
    help="Keep versions, data sets, jobs and caches in this folder, which is created if needed (default: data, or "
    "SDS_CLIP_DATA_DIR).",
)
supervised_option = option("--supervised", is_flag=True, hidden=True)  # for the children of `sds-clip up`

service_options = together(
    option(
        "--model",
        "models",
        multiple=True,
        metavar="REF",
        help="Serve this model. Repeat the option to serve several; the first one is used for requests that name no "
        "model, until `default` is moved to another version (default: demo, or SDS_CLIP_MODELS).",
    ),
    option("--port", type=int, metavar="PORT", help="Listen on this port (default: 8000, or SDS_CLIP_PORT)."),
    option("--host", metavar="HOST", help="Listen on this address (default: 127.0.0.1, or SDS_CLIP_HOST)."),
    data_dir_option,
    file_option(
        "--keys-file",
        help="Accept only callers with an API key from this file; `sds-clip keys create` adds keys to it "
        "(default: none, or SDS_CLIP_KEYS_FILE).",
    ),
    compute_options,
    compute_option(
        "--threads",
        type=int,
        metavar="N",
        help="Compute with this many threads; 0 means one per core (default: 0, or SDS_CLIP_THREADS).",
    ),
)


def read_settings(**given: Any) -> Settings:
    """Read the settings from the environment; options that were given override them."""
    from sds_clip.app.settings import Settings

    return _read(
        lambda: Settings(**{name: value for name, value in given.items() if value not in (None, ())})
    )


def read_worker_config(queue: str, **given: Any) -> WorkerConfig:
    """Like `read_settings`, for a worker of the queue."""
    from sds_clip.worker.config import OWN_VARIABLES, WorkerConfig

    return _read(lambda: WorkerConfig.read(queue, os.environ, **given), OWN_VARIABLES)


def _read(read: Callable[[], Read], variables: Mapping[str, str] = MappingProxyType({})) -> Read:
    from pydantic import ValidationError

    from sds_clip.app.retired import name_retired

    try:
        found = read()
    except ValidationError as error:
        raise _wrong_setting(error, variables) from error
    name_retired(os.environ, found.log_level, found.log_format)
    return found


def require_tracker(kind: str | None, what: str) -> None:
    """Check what can be known of a tracker before a run; None needs nothing.

    Raises click.ClickException if its extra is not installed, and ConfigError if MLflow would refuse its store.
    """
    if kind is not None:
        require_extra(kind, what)
    if kind == "mlflow":
        from sds_clip.models.training.mlflow_runs import check_store

        check_store()


def _wrong_setting(error: ValidationError, variables: Mapping[str, str]) -> click.ClickException:
    from sds_clip.models.validation import explain, first_problem

    problem = first_problem(error)
    # A model's own validator has no field. A limit is nested in `limits`, a path in a list.
    name = next((part for part in reversed(problem["loc"]) if isinstance(part, str)), "")
    name = variables.get(name, name)
    if not name:
        return click.ClickException(explain(problem))
    variable = f"SDS_CLIP_{name.upper()}"
    if problem["type"] == "missing":
        return click.ClickException(
            f"A worker needs the setting {variable}, with the same value as the service. `sds-clip up` starts "
            "both with all settings."
        )
    return click.ClickException(f"The setting {name} ({variable}) is invalid. {explain(problem)}")


def load_model(settings: Settings, model: str | None, device: str | None, precision: str | None) -> Clip:
    """Load the model that --model, --device and --precision name, and say so if nobody chose the demo model."""
    from sds_clip.models.checkpoints.load import load_served

    if model is None and "models" not in settings.model_fields_set:
        say(
            "The model is demo, which knows simple shapes alone. For photos, give --model, such as ViT-B-32/openai."
        )
    return load_served(
        model or settings.models[0],
        device=device or settings.device,
        precision=precision or settings.precision,
    )


def image_limits(settings: Settings) -> ImageLimits:
    """How large an image may be."""
    from sds_clip.models.images.decode import ImageLimits

    return ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
