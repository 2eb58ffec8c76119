"""`sds-clip workers`: who takes the jobs of a service."""

from __future__ import annotations

import argparse

from sds_clip.options import Commands, add_command
from sds_clip.remote import SERVER, add_server_options, connect, moment, print_json
from sds_clip.table import table

_DESCRIPTION = f"""\
List the workers that a service has had in the last day: which queue each takes jobs of, whether it is alive, and the
job that it has.

{SERVER}"""

_EPILOG = """\
examples:
  sds-clip workers
  sds-clip workers --json | jq '.[] | select(.alive)'
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "workers", "see who runs jobs", description=_DESCRIPTION, epilog=_EPILOG)
    add_server_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line for each worker."""
    with connect(args) as client:
        workers = client.workers()
    if args.json:
        print_json(workers)
        return 0
    rows = [
        [
            worker["id"],
            worker["queue"],
            "yes" if worker["alive"] else "no",
            worker["device"],
            worker["version"],
            moment(worker["started_at"]),
            moment(worker["seen_at"]),
            worker["job"],
        ]
        for worker in workers
    ]
    print(table(["worker", "queue", "alive", "device", "version", "started", "seen", "job"], rows))
    return 0
