"""`sds-clip datasets`: a service's data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.options import PATH, group, option, together
from sds_clip.remote import list_options, moment, print_fields, remote
from sds_clip.table import say, table, tell

if TYPE_CHECKING:
    from sds_clip.client import Client
    from sds_clip.client.schemas import DatasetInfo

dataset_argument = click.argument("dataset", metavar="DATASET", help="The data set's id or name.")
content_options = together(
    option(
        "--format",
        required=True,
        metavar="FORMAT",
        help="The format of the data: pairs for training data, or the name of a benchmark, such as winoground.",
    ),
    option(
        "--name",
        metavar="NAME",
        help="What you call the data set. The name stands for its id, and none of your other data sets may have it.",
    ),
    option(
        "--max-bad-share",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="Leave out unusable pairs or items, as long as they are at most this share of all.",
    ),
)


def _print_list(found: list[DatasetInfo]) -> None:
    rows = [
        [each["id"], each["name"], each["format"], each["status"], moment(each["created_at"])]
        for each in found
    ]
    print(table(["data set", "name", "format", "status", "created"], rows))


def _print(dataset: DatasetInfo) -> None:
    counts = dataset["counts"]
    print_fields(
        {
            "data set": dataset["id"],
            "name": dataset["name"] or None,
            "format": dataset["format"],
            "status": dataset["status"],
            "created": moment(dataset["created_at"]),
            "checked": moment(dataset["checked_at"]),
            "counts": counts and ", ".join(f"{count} {name}" for name, count in counts.items()),
            "content": dataset["content_hash"],
        }
    )
    for problem in dataset["problems"] or []:
        tell(problem.get("message") or json.dumps(problem))


def _print_new(dataset: DatasetInfo) -> None:
    _print(dataset)
    say(f"Created the data set {dataset['id']}. Follow its check: sds-clip datasets show {dataset['id']}")


@group(
    examples="""\
sds-clip datasets upload train2017/ --format pairs --name coco
sds-clip datasets upload winoground.tar.gz --format winoground
sds-clip datasets register '/datasets/coco/{00000..00059}.tar' --format pairs --name coco
sds-clip datasets show coco
""",
)
def datasets() -> None:
    """Upload, register, show and delete the data sets of a service."""


@datasets.command("list")
@option(
    "--status",
    metavar="STATUS",
    help="List only data sets with this status: validating, ready, rejected, ...",
)
@option("--format", metavar="FORMAT", help="List only data sets of this format.")
@list_options
@remote(_print_list)
def list_datasets(client: Client, **filters: Any) -> Any:
    """List data sets, newest first."""
    return client.datasets(**filters)


@datasets.command()
@dataset_argument
@remote(_print)
def show(client: Client, dataset: str) -> Any:
    """Show a data set and the problems that were found in it."""
    return client.dataset(dataset)


@datasets.command()
@click.argument("path", type=PATH, metavar="PATH", help="The archive or folder to upload.")
@content_options
@remote(_print_new)
def upload(client: Client, path: Path, name: str | None, format: str, max_bad_share: float) -> Any:
    """Upload a data set.

    PATH is an archive (tar, tar.gz or zip), or a folder, which is packed while it is sent. The service checks the
    data in the background. A job may use the data set at once; it waits until the check is done.
    """
    from sds_clip.client.errors import UnreadableFile

    try:
        return client.upload_dataset(path, format=format, name=name, max_bad_share=max_bad_share)
    except (UnreadableFile, ValueError) as error:
        # Without the name of the API's field.
        raise click.ClickException(getattr(error, "message", str(error))) from error


@datasets.command()
@click.argument("source", metavar="SOURCE", help="A path on the server.")
@content_options
@remote(_print_new)
def register(client: Client, source: str, name: str | None, format: str, max_bad_share: float) -> Any:
    """Register data that are already on the server.

    SOURCE is a folder, a file, or WebDataset shards written with {a..b}. It must be inside a folder that the
    service's operator allows. Nothing is copied.
    """
    return client.register_dataset(source, format=format, name=name, max_bad_share=max_bad_share)


@datasets.command()
@dataset_argument
@remote(lambda deleted: tell(f"Deleted the data set {deleted['id']}."))
def delete(client: Client, dataset: str) -> Any:
    """Delete a data set and its files. A data set that a job needs cannot be deleted."""
    client.delete_dataset(dataset)
    return {"id": dataset, "deleted": True}
