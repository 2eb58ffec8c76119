"""The file of a run's options, which `sds-clip finetune` and `sds-clip jobs submit` read."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")


def read_options(file: Path) -> dict[str, Any]:
    """The options in a YAML file, or in a JSON file by its name. Dashes in their names become underscores."""
    try:
        text = file.read_text(encoding="utf-8")  # an OSError is told by the command line
        values = json.loads(text, object_pairs_hook=_once) if file.suffix == ".json" else _yaml(text)
        json.dumps(values, allow_nan=False)  # YAML also has dates and bytes, and lists within themselves
    except (ValueError, TypeError, RecursionError) as error:
        form = "JSON" if file.suffix == ".json" else "YAML"
        raise click.ClickException(
            f"{file} is not valid {form}, or has values that JSON lacks: {error}"
        ) from error
    if not isinstance(values, dict):
        raise click.ClickException(f"{file} must have options in it, one `name: value` per line.")
    named = [(str(name).replace("-", "_"), value) for name, value in values.items()]
    try:
        _once(("lambda" if name == "sds_weight" else name, value) for name, value in named)
    except ValueError as error:
        raise click.ClickException(f"{file}: {error}") from error
    return dict(named)


def _once(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return pairs as a dictionary. Raises ValueError if a name is there twice."""
    found: dict[Any, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"The option {name} is there twice. Keep one of them.")
        found[name] = value
    return found


def _yaml(text: str) -> Any:
    """Raises ValueError."""
    import yaml

    def construct_mapping(loader: Any, node: Any, deep: bool = False) -> Any:
        # A merge may be overridden.
        own = [pair for pair in node.value if pair[0].tag != "tag:yaml.org,2002:merge"]
        _once((loader.construct_object(name, deep=True), value) for name, value in own)
        return yaml.SafeLoader.construct_mapping(loader, node, deep)

    loader: Any = type("Loader", (yaml.SafeLoader,), {"construct_mapping": construct_mapping})
    # In YAML 1.1, 1e-5 is a text, because there is no dot in it.
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
    try:
        return yaml.load(text, loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
