"""`sds-clip finetune` distils a diffusion model into a CLIP, or trains the control."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from sds_clip.extras import TRACKERS, missing_packages, require_extra
from sds_clip.models.training.watcher import Record, Watcher
from sds_clip.options import Command, Option, file_option, folder_option, option, require_tracker
from sds_clip.progress import Progress
from sds_clip.run_file import read_options
from sds_clip.signals import handled, stopped_in_time
from sds_clip.table import say_written

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from sds_clip.models.training.config import FinetuneConfig
    from sds_clip.models.training.parts import Parts
    from sds_clip.models.training.processes import Rank
    from sds_clip.models.training.run import Result
    from sds_clip.models.training.tracking import Tracker

# Options that most runs set. The help shows them first, in this order.
_COMMON = ("data", "images", "base", "teacher", "objective", "steps", "batch_size", "sds_weight", "device")


class _Finetune(Command):
    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Built on demand, since the configuration's module imports pydantic, which the extra `serve` brings."""
        if missing_packages("serve"):
            require_extra("train", ctx.command_path)
        return [*super().get_params(ctx), *_config_options()]


@cache
def _config_options() -> tuple[Option, ...]:
    """One option per field of the configuration; the field's description is its help."""
    from sds_clip.models.training.config import FinetuneConfig, sections

    options, section_of = [], sections(FinetuneConfig)
    for name, field in FinetuneConfig.model_fields.items():
        spelled = _spelled(name)
        if field.annotation is bool:
            spelled += f"/--no-{spelled[2:]}"
        shown_in = "Common options" if name in _COMMON else section_of[name]
        options.append(Option([spelled, name], section=shown_in, help=_help(field), **_kind(field)))
    return tuple(sorted(options, key=_place))


def _place(option: Option) -> int:
    return _COMMON.index(option.name) if option.name in _COMMON else len(_COMMON)


def _spelled(name: str) -> str:
    return "--lambda" if name == "sds_weight" else f"--{name.replace('_', '-')}"


def _help(field: FieldInfo) -> str:
    """The field's description, in which other fields are named as options."""
    from sds_clip.models.training.config import FinetuneConfig

    own = get_args(field.annotation)  # its choices, one of which may be called as a field is
    others = FinetuneConfig.model_fields.keys() - set(map(str, own))
    text = " ".join((field.description or "").split())
    text = re.sub(r"`([^`]*)`", lambda word: _spelled(word[1]) if word[1] in others else word[1], text)
    if field.is_required() or field.default is None:
        return text
    default = ("no", "yes")[field.default] if field.annotation is bool else field.default
    return f"{text} (default: {default})".lstrip()


def _kind(field: FieldInfo) -> dict[str, Any]:
    if field.annotation is bool:
        return {"default": None}
    if get_origin(field.annotation) is Literal:
        return {"type": click.Choice(get_args(field.annotation))}
    kinds = {int: "N", float: "NUMBER", Path: "PATH", str: "TEXT", bool: "yes|no"}
    return {"metavar": next((kinds[kind] for kind in _types(field.annotation) if kind in kinds), "TEXT")}


def _types(annotation: Any) -> list[Any]:
    """The plain types in an annotation such as `Annotated[int, Field(ge=1)] | None`."""
    parts = get_args(annotation)
    return [one for part in parts for one in _types(part)] if parts else [annotation]


@click.command(
    cls=_Finetune,
    extra="train",
    references=True,
    examples="""\
sds-clip finetune --base ViT-B-32/openai --teacher stable-diffusion-v1-5/stable-diffusion-v1-5 \\
    --data captions_train2017.json --images train2017 --sds-batch-size 8 --steps 2000 --out runs/sds
sds-clip finetune --config runs/sds/config.yaml --objective clip --out runs/control
torchrun --nproc-per-node 4 -m sds_clip finetune --config runs/sds/config.yaml --out runs/four
sds-clip serve --model local-dir:runs/sds/delta
""",
)
@folder_option(
    "--out", required=True, help="Write the run's files to this folder, which is created if needed."
)
@file_option("--config", help="Read options from this YAML file. Options on the command line override it.")
@folder_option(
    "--control",
    help="Show the curves of the run in this folder beside the run's own, in its report.html. The control is the same "
    "run without a teacher.",
)
@option(
    "--log-to",
    type=click.Choice(TRACKERS),
    help="Also send every record of log.jsonl to a tracker: to TensorBoard, by event files in OUT/tensorboard, or to "
    "MLflow, at MLFLOW_TRACKING_URI. Each needs the extra of its name.",
)
@option("--resume", is_flag=True, help="Continue the stopped run in --out, or start one if there is none.")
@stopped_in_time()
def finetune(
    config: Path | None, out: Path, control: Path | None, log_to: str | None, resume: bool, **given: Any
) -> int:
    """Fine-tune a CLIP model, with a diffusion model as its teacher.

    The data are pairs of images and captions. --objective chooses what is trained. sds-clip is the method of the
    paper (arXiv 2307.09233): L_CLIP + lambda * L_SDS. condition gives the teacher the image embedding in place of the
    caption. noise-contrast tells what the teacher then predicts from what it predicts under other images' embeddings.
    score distils which caption the teacher prefers for an image. clip is L_CLIP alone, without a teacher: the control.

    The run writes five things to the folder --out: delta (the weights that changed), report.html (its curves),
    config.yaml, log.jsonl and checkpoints. If the run is killed, the same command with --resume continues it. It ends
    with the same weights as a run that was never stopped.
    """
    require_tracker(log_to, f"--log-to {log_to}")
    return _train(read_config(config, given), out, control=control, log_to=log_to, resume=resume)


def _train(
    config: FinetuneConfig, out: Path, *, control: Path | None, log_to: str | None, resume: bool
) -> int:
    from sds_clip.models.training.parts import load_parts
    from sds_clip.models.training.processes import find_rank
    from sds_clip.models.training.report import read_run
    from sds_clip.models.training.run import check_out

    # Before the data are read, which takes minutes.
    check_out(out, resume=resume)
    if control is not None:
        read_run(control)
    rank = find_rank(config.device)
    parts = load_parts(config, rank, say=_say if rank.is_main else lambda message: None)
    tracker = _tracker(log_to, out) if log_to is not None and rank.is_main else None
    stopped = "The run stopped after step {}. The same command with --resume continues it."
    result, code = train_and_show(
        config, parts, out, rank, stopped, control=control, tracker=tracker, resume=resume
    )
    if not rank.is_main:
        return 0
    if result.delta is None:
        return code
    for name, value in result.metrics.items():
        print(f"{name}: {value:.4f}")
    print(f"local-dir:{result.delta}")
    for warning in result.warnings:
        _say(f"warning: {warning.message} ({warning.code})")
    say_written(result.delta)
    return 0


def _tracker(kind: str, out: Path) -> Tracker:
    from sds_clip.models.training.log import writing
    from sds_clip.models.training.trackers import make_tracker, run_id

    with writing(out):
        key = run_id(out)
    return make_tracker(kind, name=out.name, key=key, folder=out / "tensorboard")


def train_and_show(
    config: FinetuneConfig,
    parts: Parts,
    out: Path,
    rank: Rank,
    stopped: str,
    *,
    resume: bool,
    control: Path | None = None,
    tracker: Tracker | None = None,
) -> tuple[Result, int]:
    """Train and show the progress. SIGINT and SIGTERM stop the run; return also the exit code of a stopped one.

    `stopped` is what a stopped run says, with a place for the number of its steps. A step that takes too long is not
    waited for: the state before it is saved, and the process ends.
    """
    from sds_clip.models.training.run import train

    terminal = _Terminal()

    def save() -> None:
        if terminal.save is not None:
            _say(stopped.format(terminal.save()))

    with (
        handled((signal.SIGINT, signal.SIGTERM), terminal.receive),
        stopped_in_time(save),
        closing(terminal),
    ):
        result = train(
            config, parts, out, rank, resume=resume, watcher=terminal, control=control, tracker=tracker
        )
    if result.delta is None and rank.is_main:
        _say(stopped.format(result.steps_done))
    return result, 128 + (terminal.received or signal.SIGTERM)  # None if another process got the signal


def read_config(file: Path | None, given: Mapping[str, Any]) -> FinetuneConfig:
    """Read the configuration from the file; options that were given override it."""
    from sds_clip.models.training.config import parse_config

    values = read_options(file) if file else {}
    given = {name: value for name, value in given.items() if value is not None}
    if "lambda" in values:
        values["sds_weight"] = values.pop("lambda")
    for one, other in (("steps", "epochs"), ("epochs", "steps")):
        if one in given:  # an option replaces its counterpart in the file
            values.pop(other, None)
    if "data" not in values | given:
        raise click.UsageError("Missing option '--data'.")
    return parse_config(values | given)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


class _Terminal(Watcher):
    """Shows a progress bar on a terminal, or else one line per record. A signal stops the run."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.save: Callable[[], int] | None = None
        """Saves the state after the last whole step, once there may be one."""
        self._progress, self._steps = Progress(), Progress(has_lines=False, unit="step")

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Make the run save a checkpoint and end. A second signal kills it."""
        self.received = number
        signal.signal(number, signal.SIG_DFL)

    def should_stop(self) -> bool:
        return self.received is not None

    def close(self) -> None:
        self._progress.close()
        self._steps.close()

    def on_restored(self, save: Callable[[], int]) -> None:
        self.save = save

    def on_batch(self, stage: str, done: int, total: int) -> None:
        self._steps.close()
        self._progress.show(stage, done, total)

    def on_step(self, done: int, steps: int) -> None:
        self._steps.show("finetune", done, steps)

    def on_record(self, record: Record) -> None:
        """Show a record's losses, next to the bar or as a line."""
        losses = {
            name: f"{record[name]:.4g}"
            for name in ("loss", "clip", "sds", "condition", "noise_contrast", "negatives")
            if name in record
        }
        if losses and self._steps.bar is not None:
            self._steps.bar.set_postfix(losses, refresh=False)
        elif losses and not sys.stderr.isatty():
            shown = " ".join(f"{name} {value}" for name, value in losses.items())
            _say(f"step {record['step']}/{record['steps']} {shown}")
