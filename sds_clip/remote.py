"""What the commands share that speak to a service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from sds_clip.options import json_option, option, together
from sds_clip.table import printable

if TYPE_CHECKING:
    from sds_clip.client import Client

server_options = together(
    option(
        "--url",
        help="Speak to the service at this URL, with the key in SDS_CLIP_API_KEY where it asks for one "
        "(default: http://127.0.0.1:8000, or SDS_CLIP_URL).",
    ),
    json_option,
)
limit_option = option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    metavar="N",
    help="List so many at most (default: 20).",
)


def connect(url: str | None) -> Client:
    """A client for the service; imported late, since httpx takes its time."""
    from sds_clip.client import Client

    return Client(url)


def print_json(content: Any) -> None:
    """Print it as JSON."""
    print(json.dumps(content, indent=2))


def print_lines(records: Iterable[dict[str, Any]]) -> None:
    """Print each as a line of JSON."""
    for record in records:
        print(json.dumps(record))


def print_fields(fields: dict[str, object]) -> None:
    """Print a line for each field that has a value, names to the left."""
    shown = {name: value for name, value in fields.items() if value is not None}
    widest = max(map(len, shown))
    for name, value in shown.items():
        print(f"{name:<{widest}}  {printable(str(value))}")


def moment(seconds: float | None) -> str | None:
    """A time of the service on the clock of this machine."""
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
