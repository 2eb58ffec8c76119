"""The reference of settings: every environment variable, by who reads it."""

import ast
import inspect
from collections.abc import Iterable
from textwrap import dedent
from typing import Any

from pydantic import TypeAdapter

from sds_clip.app.retired import RETIRED
from sds_clip.app.settings import Settings
from sds_clip.client.connection import DEFAULT_URL
from sds_clip.worker.config import OWN_VARIABLES, WorkerConfig
from tools.reference.markdown import Schema, default, kind, table

PAGE = """\
# Settings

The service and the workers read their settings from environment variables, once, when they start. An option of the
command line comes before its variable. Lists are separated by commas. `sds-clip up` passes its environment on to the
service and to the workers.

## Service and workers

Both read these. Give both the same values.

{both}

## Service

{service}

## Workers

{worker}

## Client and command line

The Python client and the commands that call a service read these.

{client}
"""
UNITS = {
    "_per_s": "bytes a second",
    "_s": "seconds",
    "_bytes": "bytes",
    "_chars": "characters",
    "_pixels": "pixels",
}
CLIENT: dict[str, Schema] = {
    "url": {"type": "string", "default": DEFAULT_URL, "description": "The address of the service."},
    "api_key": {"type": "string", "description": "The API key, for a service that asks for one."},
}


def page() -> str:
    service: dict[str, Schema] = Settings.model_json_schema()["properties"]
    worker = worker_settings()
    return PAGE.format(
        both=_table((name, {**worker[name], **service[name]}) for name in service if name in worker),
        service=_table((name, schema) for name, schema in service.items() if name not in worker),
        worker=_table((name, schema) for name, schema in worker.items() if name not in service),
        client=_table(CLIENT.items()),
    )


def worker_settings() -> dict[str, Schema]:
    """The settings of a worker by their variables' names, with the docstrings of their fields."""
    schema = TypeAdapter(WorkerConfig).json_schema()
    found: dict[str, Schema] = dict(schema["properties"])
    found |= schema["$defs"]["Rules"]["properties"]
    for name, text in _docstrings(WorkerConfig).items():
        found[name]["description"] = text
    # An option of the command, and a group.
    del found["queue"], found["retention"]
    found = {name: each for name, each in found.items() if name not in RETIRED}
    own = {variable: found[name] for name, variable in OWN_VARIABLES.items()}
    own["worker_device"] = {**own["worker_device"], "default": None}
    own["worker_device"]["description"] += " By default it is SDS_CLIP_DEVICE."
    # Workers read SDS_CLIP_DEVICE too, but neither SDS_CLIP_THREADS nor SDS_CLIP_NICE.
    return {name: each for name, each in found.items() if name == "device" or name not in OWN_VARIABLES} | own


def _docstrings(kind: type) -> dict[str, str]:
    """The texts below the fields of a class, which are not kept when it runs."""
    (body,) = ast.parse(dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                found[name] = words
    return found


def _table(settings: Iterable[tuple[str, Schema]]) -> str:
    rows = [
        (f"`SDS_CLIP_{name.upper()}`", kind(each).removesuffix(" or null"), _default(each), _unit(name),
         each.get("description", ""))
        for name, each in settings
    ]  # fmt: skip
    return table(("variable", "type", "default", "unit", "meaning"), rows)


def _default(schema: Schema) -> str:
    value: Any = schema.get("default")
    for size, unit in ((2**30, "GiB"), (2**20, "MiB")):
        if isinstance(value, int) and value >= size and value % size == 0:
            return f"{default(schema)} ({value // size} {unit})"
    return default(schema)


def _unit(name: str) -> str:
    return next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")
