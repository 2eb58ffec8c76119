"""`sds-clip datasets`: a service's data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.options import PATH, Group, option, together
from sds_clip.remote import limit_option, moment, print_fields, remote
from sds_clip.table import printable, table

if TYPE_CHECKING:
    from sds_clip.client import Client

dataset_argument = click.argument("dataset", metavar="DATASET", help="Its id.")
content_options = together(
    option("--format", required=True, help="Read it as pairs, to train on, or as a benchmark of this name."),
    option(
        "--max-bad-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="Leave out pairs or items that cannot be used, up to this share.",
    ),
)


def _print_list(found: list[dict[str, Any]]) -> None:
    rows = [
        [each["id"], each["name"], each["format"], each["status"], moment(each["created_at"])]
        for each in found
    ]
    print(table(["data set", "name", "format", "status", "created"], rows))


def _print(dataset: dict[str, Any]) -> None:
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


@click.group(
    cls=Group,
    examples="""\
sds-clip datasets upload train2017/ --format pairs --name coco
sds-clip datasets upload winoground.tar.gz --format winoground
sds-clip datasets register '/datasets/coco/{00000..00059}.tar' --format pairs --name coco
sds-clip datasets show DATASET
""",
)
def datasets() -> None:
    """Upload, register and see the data sets of a service."""


@datasets.command("list")
@option("--status", metavar="STATUS", help="List those alone that are validating, ready, rejected, ...")
@limit_option
@remote(_print_list)
def list_datasets(client: Client, status: str | None, limit: int) -> Any:
    """List data sets, the newest first."""
    return client.datasets(status=status, limit=limit)


@datasets.command()
@dataset_argument
@remote(_print)
def show(client: Client, dataset: str) -> Any:
    """Show a data set, and what is wrong with it."""
    return client.dataset(dataset)


@datasets.command()
@click.argument("path", type=PATH, metavar="PATH", help="An archive or a folder.")
@option("--name", help="Call it this (default: the file's own name).")
@content_options
@remote(_print)
def upload(client: Client, path: Path, name: str | None, format: str, max_bad_share: float) -> Any:
    """Send a data set.

    Sends an archive (tar, tar.gz or zip), or a folder, which is packed on the way. The service checks it in the
    background; a job may name it at once and waits for that.
    """
    try:
        return client.upload_dataset(path, format=format, name=name, max_bad_share=max_bad_share)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


@datasets.command()
@click.argument("source", metavar="SOURCE", help="A path on the server.")
@option("--name", required=True, help="Call it this.")
@content_options
@remote(_print)
def register(client: Client, source: str, name: str, format: str, max_bad_share: float) -> Any:
    """Name data that lie on the server.

    Makes known a folder, a file or WebDataset shards with {a..b}, below the folders that the service's operator
    allows. Nothing is copied.
    """
    return client.register_dataset(source, format=format, name=name, max_bad_share=max_bad_share)


@datasets.command()
@dataset_argument
@remote(lambda deleted: print(f"{deleted['id']} is deleted"))
def delete(client: Client, dataset: str) -> Any:
    """Delete a data set and its files, unless a job needs it."""
    client.delete_dataset(dataset)
    return {"id": dataset, "deleted": True}
