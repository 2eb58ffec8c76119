"""`sds-clip models`: what a service serves, its versions and aliases."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sds_clip.options import Commands
from sds_clip.remote import (
    add_actions,
    add_limit_option,
    add_server_options,
    connect,
    moment,
    print_json,
    print_lines,
)
from sds_clip.table import table

_EPILOG = """\
examples:
  sds-clip models list
  sds-clip models promote VERSION --reason "better on Winoground"
  sds-clip models rollback default --reason "worse in production"
  sds-clip models download default --out better.tar
  sds-clip models log VERSION | jq .loss
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    action = add_actions(
        commands,
        "models",
        "see, promote and fetch the versions of a service",
        description="See, promote and fetch the versions of a service.",
        epilog=_EPILOG,
    )
    listing = action("list", "list versions", "List what is served, and the versions, the newest first.")
    add_limit_option(listing)
    listing.set_defaults(run=run_list)
    promote = action(
        "promote",
        "point an alias at a version",
        "Point an alias at a version; the service swaps it in within seconds.",
    )
    promote.add_argument("version", metavar="VERSION", help="its id, as `sds-clip models list` has it")
    promote.add_argument("--alias", default="default", help="the name to move (default: default)")
    promote.add_argument("--force", action="store_true", help="also one that its own job found not better")
    promote.set_defaults(run=run_promote)
    rollback = action(
        "rollback",
        "point an alias at the version before",
        "Point an alias at the version that it pointed at before.",
    )
    rollback.add_argument("alias", metavar="ALIAS", nargs="?", default="default", help="(default: default)")
    rollback.set_defaults(run=run_rollback)
    for moving in (promote, rollback):
        moving.add_argument("--reason", required=True, help="why, for the audit")
    download = action(
        "download",
        "fetch a version's files",
        "Write a version's files to a tar, which local-dir: loads once unpacked.",
    )
    download.add_argument("version", metavar="VERSION", help="its id, or an alias")
    download.add_argument("--out", required=True, type=Path, metavar="FILE", help="the tar to write")
    download.add_argument("--full", action="store_true", help="whole weights, also of a delta")
    download.set_defaults(run=run_download)
    log = action(
        "log",
        "print the log of a version's training",
        "Print the log of the run that made a version, as JSON lines.",
    )
    log.add_argument("version", metavar="VERSION", help="its id, or an alias")
    log.set_defaults(run=run_log)
    for each in (listing, promote, rollback, download, log):
        add_server_options(each)


def run_list(args: argparse.Namespace) -> int:
    """Print what is served, then the versions."""
    with connect(args) as client:
        found = client.models(limit=args.limit)
    if args.json:
        print_json(found)
        return 0
    served = [
        [model["name"], model["generation"], model["architecture"], model["precision"], model["version"]]
        for model in found["models"]
    ]
    print(table(["served as", "generation", "architecture", "precision", "version"], served))
    if found["registry"] == "away":
        print("\nThe versions cannot be read at the moment.")
    elif found["registry"] == "read":
        versions = [_line(version) for version in found["versions"]]
        print()
        print(table(["version", "aliases", "status", "base", "bytes", "created", "job"], versions))
    return 0


def run_promote(args: argparse.Namespace) -> int:
    """Print where the alias points now."""
    with connect(args) as client:
        alias = client.promote(
            args.version, alias=args.alias, reason=args.reason, force=True if args.force else None
        )
    return _moved(args, alias)


def run_rollback(args: argparse.Namespace) -> int:
    """Print where the alias points now."""
    with connect(args) as client:
        alias = client.rollback(args.alias, reason=args.reason)
    return _moved(args, alias)


def run_download(args: argparse.Namespace) -> int:
    """Print where the files are."""
    with connect(args) as client:
        file = client.download(args.version, args.out, full=args.full)
    size_bytes = file.stat().st_size
    if args.json:
        print_json({"file": str(file), "size_bytes": size_bytes})
    else:
        print(f"{file}: {size_bytes} bytes")
    return 0


def run_log(args: argparse.Namespace) -> int:
    """Print every record."""
    with connect(args) as client:
        print_lines(client.model_log(args.version))
    return 0


def _moved(args: argparse.Namespace, alias: dict[str, Any]) -> int:
    if args.json:
        print_json(alias)
    else:
        print(f"{alias['name']} is {alias['version']}, generation {alias['generation']}")
    return 0


def _line(version: dict[str, Any]) -> list[object]:
    return [
        version["id"],
        " ".join(version["aliases"]),
        version["status"],
        version["base"],
        version["size_bytes"],
        moment(version["created_at"]),
        version["job_id"],
    ]
