"""What the commands share that speak to a service."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from sds_clip.options import Commands, Parser, add_command, add_json_option
from sds_clip.table import printable

if TYPE_CHECKING:
    from sds_clip.client import Client

SERVER = """\
The service is at --url, or SDS_CLIP_URL. Where it has keys, SDS_CLIP_API_KEY holds one.
"""


def add_server_options(parser: argparse.ArgumentParser) -> None:
    """--url and --json."""
    parser.add_argument(
        "--url", help="where the service is (default: http://127.0.0.1:8000, or SDS_CLIP_URL)"
    )
    add_json_option(parser)


def add_actions(
    commands: Commands, name: str, summary: str, *, description: str, epilog: str
) -> Callable[[str, str, str], Parser]:
    """A command that has actions, and what declares one: its name, summary and description."""
    parser = add_command(commands, name, summary, description=f"{description}\n\n{SERVER}", epilog=epilog)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, summary: str, description: str) -> Parser:
        return add_command(actions, name, summary, description=f"{description}\n\n{SERVER}", epilog=epilog)

    return action


def add_limit_option(parser: argparse.ArgumentParser) -> None:
    """--limit."""
    parser.add_argument(
        "--limit", type=_positive, default=20, metavar="N", help="how many at most (default: 20)"
    )


def _positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def connect(args: argparse.Namespace) -> Client:
    """A client for the service that the options name."""
    from sds_clip.client import Client

    return Client(args.url)


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
