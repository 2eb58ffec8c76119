"""What the commands that call a service share."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from sds_clip.options import Decorator, json_option, number_option, option, together
from sds_clip.table import tell

if TYPE_CHECKING:
    from sds_clip.client import Client

url_option = option(
    "--url",
    section="Service",
    metavar="URL",
    help="Call the service at this URL. If it asks for an API key, set SDS_CLIP_API_KEY "
    "(default: http://127.0.0.1:8000, or SDS_CLIP_URL).",
)
server_options = together(url_option, json_option)
_time_option = functools.partial(
    option,
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S"]),
    metavar="TIME",
    callback=lambda context, option, time: time and time.timestamp(),
)
list_options = together(
    option("--name", metavar="TEXT", help="List only what has a name that begins with this text."),
    _time_option(
        "--created-after",
        help="List only what was made after this local time, such as 2026-11-27 or '2026-11-27 18:30:00'.",
    ),
    _time_option("--created-before", help="List only what was made before this local time."),
    option(
        "--owner",
        metavar="KEY",
        help="List only what the API key of this name made. For keys with the scope admin.",
    ),
    number_option("--limit", default=20, help="List at most this many."),
)


def connect(url: str | None) -> Client:
    """Create a client for the service. The import is late because httpx is slow to import."""
    from sds_clip.client import Client

    return Client(url)


def remote(show: Callable[[Any], None], *, code: Callable[[Any], int] = lambda _: 0) -> Decorator[Any]:
    """Turn a function of a client and options into a command's callback, adding --url and --json.

    Its return value is printed as JSON, or by `show`. `code` makes the exit code of it.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        @server_options
        @functools.wraps(function)
        def command(url: str | None, as_json: bool, **given: Any) -> int:
            with connect(url) as client:
                answer = function(client, **given)
            print_json(answer) if as_json else show(answer)
            return code(answer)

        return command

    return decorate


def print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))


def print_lines(records: Iterable[dict[str, Any]]) -> None:
    for record in records:
        print(json.dumps(record))


def print_fields(fields: dict[str, object]) -> None:
    """Print one line per field that has a value, names left-aligned."""
    shown = {name: value for name, value in fields.items() if value is not None}
    widest = max(map(len, shown))
    for name, value in shown.items():
        tell(f"{name:<{widest}}  {value}")


def moment(seconds: float | None) -> str | None:
    """Format a timestamp in local time."""
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
