"""`sds-clip jobs submit`: a job from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sds_clip.options import command, file_option, option
from sds_clip.remote import remote
from sds_clip.run_file import read_options
from sds_clip.table import say, tell

if TYPE_CHECKING:
    from sds_clip.client import Client

_COMMON = frozenset({"name", "suffix", "metadata", "priority", "max_run_time_s", "dry_run"})
FINETUNE = _COMMON | {
    *("base", "teacher", "training_data", "validation_data", "objective", "hyperparameters", "evaluate"),
    *("promote", "alias", "thresholds", "seed", "devices"),
}
"""The fields of POST /finetune. All else in a file is a hyperparameter."""
RENAMED = {"data": "training_data", "val": "validation_data", "lambda": "sds_weight"}
"""What `sds-clip finetune` calls them, and the service."""
OF_A_MACHINE = (
    *("device", "images", "val_images", "labels", "caption_cache"),
    *("data_format", "image_key", "caption_key", "separator", "workers"),
)
"""Options of `sds-clip finetune` that a job does not have, since its data are data sets and its labels a teacher's."""


def _print(answer: dict[str, Any]) -> None:
    if answer["object"] == "dry_run":
        print(json.dumps(answer["estimate"], indent=2))
        return
    tell(f"The job {answer['id']} is {answer['status']}.")
    say(f"Follow it: sds-clip jobs watch {answer['name'] or answer['id']}")


@command(
    examples="""\
sds-clip jobs submit --config run.yaml --name first-try
sds-clip jobs submit --config runs/sds/config.yaml --set training_data=my-pairs --set lr=0.0003
sds-clip jobs submit --config evaluation.json --dry-run
""",
)
@file_option("--config", required=True, help="Read the job's fields from this file: YAML, or JSON.")
@option(
    "--set",
    "assignments",
    multiple=True,
    metavar="FIELD=VALUE",
    help="Set a field, whatever the file says. The value is JSON or else a text. Dots name fields of fields: "
    "thresholds.max_loss=0.02. null takes a field out. Repeat the option to set several.",
)
@option("--name", metavar="NAME", help="What you call the job. The name stands for its id.")
@option("--dry-run", is_flag=True, help="Only check the job, and show what it would need.")
@remote(_print)
def submit(
    client: Client, config: Path, assignments: tuple[str, ...], name: str | None, dry_run: bool
) -> Any:
    """Submit a job from a file.

    The file has the fields of POST /evaluate if `benchmark` is one of them, else those of POST /finetune.
    Hyperparameters may stand beside the others, as in the config.yaml that `sds-clip finetune` reads and writes. Its
    `data` and `val` are then data sets of the service, and options of one machine, such as `device`, are left out.
    """
    kind, fields = request(read_options(config), [*assignments, *([] if name is None else [f"name={name}"])])
    if dry_run:
        return client.dry_run(kind, **fields)
    submitted = client.evaluate(**fields) if kind == "evaluate" else client.finetune(**fields)
    return submitted.info


def request(
    values: Mapping[str, Any], assignments: Iterable[str]
) -> tuple[Literal["finetune", "evaluate"], dict[str, Any]]:
    """The kind of a job, and the body of its request."""
    assignments = list(assignments)
    measures = "benchmark" in values or any(each.startswith("benchmark=") for each in assignments)
    renamed = {} if measures else RENAMED
    fields = {renamed.get(name, name): value for name, value in values.items()}
    for assignment in assignments:
        _assign(fields, assignment, renamed)
    fields = {name: value for name, value in fields.items() if value is not None}
    if measures:
        return "evaluate", _required(fields, "data")
    if left_out := [name for name in OF_A_MACHINE if fields.pop(name, None) is not None]:
        say(f"Left out, since the service decides them itself: {', '.join(left_out)}.")
    chosen = {name: fields.pop(name) for name in fields.keys() & FINETUNE}
    nested = chosen.get("hyperparameters", {})
    if not isinstance(nested, dict):
        raise click.ClickException(
            "hyperparameters: The value must be an object, with a field for each option."
        )
    return "finetune", _required({**chosen, "hyperparameters": {**nested, **fields}}, "training_data")


def _assign(fields: dict[str, Any], assignment: str, renamed: Mapping[str, str]) -> None:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise click.BadParameter(f"{assignment!r} is not of the form FIELD=VALUE.", param_hint="--set")
    first, *others = path.split(".")
    first = first.replace("-", "_")
    if first != "metadata":  # its names are the user's own
        others = [each.replace("-", "_") for each in others]
    *parents, name = (renamed.get(first, first), *others)
    for parent in parents:
        inner = fields.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise click.BadParameter(f"{parent} has no fields of its own.", param_hint="--set")
        fields = inner
    try:
        fields[name] = json.loads(text)
    except ValueError:
        fields[name] = text


def _required(fields: dict[str, Any], name: str) -> dict[str, Any]:
    if name not in fields:
        raise click.ClickException(
            f"{name}: This field is required; add it to the file, or set it: --set {name}=DATASET"
        )
    return fields
