"""Options of a benchmark: a dataclass whose fields hold an option's default, its default with --quick, and its help."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import field, fields
from pathlib import Path
from typing import Any, TypeVar

P = TypeVar("P")
QUICK = "Make a short run, which only shows that the benchmark works. Its figures measure nothing."


def option(
    default: Any,
    help: str,
    *,
    quick: Any = None,
    kind: type | None = None,
    choices: Any = None,
    nargs: Any = None,
) -> Any:
    """A field that is an option, with another default under --quick. `kind` is the default's own type if it has one."""
    kind = kind or type(default)
    if default is not None and default is not False and default != "":
        help += f" The default is {default}" + (f", or {quick} with --quick." if quick is not None else ".")
    keywords = (
        {"action": "store_true"} if kind is bool else {"type": kind, "choices": choices, "nargs": nargs}
    )
    return field(default=default, metadata={"quick": quick, "keywords": {"help": help, **keywords}})


def parse(kind: type[P], name: str, description: str | None, arguments: Sequence[str] | None) -> P:
    """Read the options of `python -m NAME`. --quick is one if a field has a default for it; paths become absolute."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}", description=description, argument_default=argparse.SUPPRESS
    )
    options = fields(kind)  # type: ignore[arg-type]
    quick = {each.name: each.metadata["quick"] for each in options if each.metadata["quick"] is not None}
    if quick:
        parser.add_argument("--quick", action="store_true", help=QUICK)
    for each in options:
        parser.add_argument(f"--{each.name.replace('_', '-')}", **each.metadata["keywords"])
    given = vars(parser.parse_args(arguments))
    defaults = {each.name: each.default for each in options} | (quick if given.pop("quick", False) else {})
    values = (defaults | given).items()
    return kind(**{key: value.resolve() if isinstance(value, Path) else value for key, value in values})


def cache_option() -> Any:
    return option(Path(".cache/bench"), "Folder for files that are created once and kept between runs.")
