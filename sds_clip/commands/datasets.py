"""`sds-clip datasets`: the data sets of a service."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from sds_clip.errors import CliError
from sds_clip.options import Commands
from sds_clip.remote import (
    add_actions,
    add_limit_option,
    add_server_options,
    connect,
    moment,
    print_fields,
    print_json,
)
from sds_clip.table import printable, table

_EPILOG = """\
examples:
  sds-clip datasets upload train2017/ --format pairs --name coco
  sds-clip datasets upload winoground.tar.gz --format winoground
  sds-clip datasets register '/datasets/coco/{00000..00059}.tar' --format pairs --name coco
  sds-clip datasets show DATASET
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    action = add_actions(
        commands,
        "datasets",
        "upload, register and see the data sets of a service",
        description="Upload, register and see the data sets of a service.",
        epilog=_EPILOG,
    )
    listing = action("list", "list data sets", "List data sets, the newest first.")
    listing.add_argument(
        "--status", metavar="STATUS", help="only those that are validating, ready, rejected, ..."
    )
    add_limit_option(listing)
    listing.set_defaults(run=run_list)
    show = action("show", "show a data set", "Show a data set, and what is wrong with it.")
    show.set_defaults(run=run_show)
    upload = action(
        "upload",
        "send a data set",
        "Send an archive (tar, tar.gz or zip), or a folder, which is packed on the way. The service checks it in the "
        "background; a job may name it at once and waits for that.",
    )
    upload.add_argument("path", type=Path, metavar="PATH", help="archive or folder")
    upload.add_argument("--name", help="what to call it (default: the file's own name)")
    upload.set_defaults(run=run_upload)
    register = action(
        "register",
        "name data that lie on the server",
        "Make known a folder, a file or WebDataset shards with {a..b}, below the folders that the service's operator "
        "allows. Nothing is copied.",
    )
    register.add_argument("source", metavar="SOURCE", help="a path on the server")
    register.add_argument("--name", required=True, help="what to call it")
    register.set_defaults(run=run_register)
    for each in (upload, register):
        each.add_argument("--format", required=True, help="pairs, to train on, or a benchmark's name")
        each.add_argument(
            "--max-bad-share",
            type=float,
            default=0.0,
            metavar="SHARE",
            help="the share of pairs or items that may be unusable, and is left out (default: 0)",
        )
    delete = action("delete", "delete a data set", "Delete a data set and its files, unless a job needs it.")
    delete.set_defaults(run=run_delete)
    for each in (show, delete):
        each.add_argument("dataset", metavar="DATASET", help="its id")
    for each in (listing, show, upload, register, delete):
        add_server_options(each)


def run_list(args: argparse.Namespace) -> int:
    """Print a line for each data set."""
    with connect(args) as client:
        found = client.datasets(status=args.status, limit=args.limit)
    if args.json:
        print_json(found)
        return 0
    rows = [
        [each["id"], each["name"], each["format"], each["status"], moment(each["created_at"])]
        for each in found
    ]
    print(table(["data set", "name", "format", "status", "created"], rows))
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print all about a data set."""
    with connect(args) as client:
        _print(client.dataset(args.dataset), as_json=args.json)
    return 0


def run_upload(args: argparse.Namespace) -> int:
    """Send it, and print what it is called."""
    with connect(args) as client:
        try:
            dataset = client.upload_dataset(
                args.path, format=args.format, name=args.name, max_bad_share=args.max_bad_share
            )
        except ValueError as error:
            raise CliError(str(error)) from error
    _print(dataset, as_json=args.json)
    return 0


def run_register(args: argparse.Namespace) -> int:
    """Make it known, and print what it is called."""
    with connect(args) as client:
        dataset = client.register_dataset(
            args.source, format=args.format, name=args.name, max_bad_share=args.max_bad_share
        )
    _print(dataset, as_json=args.json)
    return 0


def run_delete(args: argparse.Namespace) -> int:
    """Say that it is deleted."""
    with connect(args) as client:
        client.delete_dataset(args.dataset)
    if args.json:
        print_json({"id": args.dataset, "deleted": True})
    else:
        print(f"{args.dataset} is deleted")
    return 0


def _print(dataset: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(dataset)
        return
    counts = dataset["counts"]
    print_fields(
        {
            "data set": dataset["id"],
            "name": dataset["name"],
            "format": dataset["format"],
            "status": dataset["status"],
            "created": moment(dataset["created_at"]),
            "checked": moment(dataset["checked_at"]),
            "counts": counts and ", ".join(f"{count} {name}" for name, count in counts.items()),
            "content": dataset["content_hash"],
        }
    )
    for problem in dataset["problems"] or []:
        print(printable(problem.get("message") or json.dumps(problem)))
