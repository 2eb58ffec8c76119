"""`sds-clip models`: a service's models, versions and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.options import Group, file_option, option
from sds_clip.remote import connect, limit_option, moment, print_lines, remote, server_options
from sds_clip.table import table

if TYPE_CHECKING:
    from sds_clip.client import Client

version_argument = click.argument("version", metavar="VERSION", help="Its id, or an alias.")
reason_option = option("--reason", required=True, help="Say why, for the audit.")


def _print_list(found: dict[str, Any]) -> None:
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


def _print_alias(alias: dict[str, Any]) -> None:
    print(f"{alias['name']} is {alias['version']}, generation {alias['generation']}")


@click.group(
    cls=Group,
    examples="""\
sds-clip models list
sds-clip models promote VERSION --reason "better on Winoground"
sds-clip models rollback default --reason "worse in production"
sds-clip models download default --out better.tar
sds-clip models log VERSION | jq .loss
""",
)
def models() -> None:
    """See, promote and fetch the versions of a service."""


@models.command("list")
@limit_option
@remote(_print_list)
def list_models(client: Client, limit: int) -> Any:
    """List what is served, and the versions, the newest first."""
    return client.models(limit=limit)


@models.command()
@click.argument("version", metavar="VERSION", help="Its id, as `sds-clip models list` has it.")
@reason_option
@option("--alias", default="default", help="Move this name.")
@option("--force", is_flag=True, help="Promote also a version that its own job found not better.")
@remote(_print_alias)
def promote(client: Client, version: str, reason: str, alias: str, force: bool) -> Any:
    """Point an alias at a version.

    The service swaps it in within seconds.
    """
    return client.promote(version, alias=alias, reason=reason, force=True if force else None)


@models.command()
@click.argument("alias", metavar="[ALIAS]", default="default", help="The name to move (default: default).")
@reason_option
@remote(_print_alias)
def rollback(client: Client, alias: str, reason: str) -> Any:
    """Point an alias at the version that it pointed at before."""
    return client.rollback(alias, reason=reason)


@models.command()
@version_argument
@file_option("--out", required=True, help="Write this tar.")
@option("--full", is_flag=True, help="Fetch whole weights, also of a delta.")
@remote(lambda written: print(f"{written['file']}: {written['size_bytes']} bytes"))
def download(client: Client, version: str, out: Path, full: bool) -> Any:
    """Write a version's files to a tar, which local-dir: loads once unpacked."""
    file = client.download(version, out, full=full)
    return {"file": str(file), "size_bytes": file.stat().st_size}


@models.command()
@version_argument
@server_options
def log(version: str, url: str | None, as_json: bool) -> int:
    """Print the log of the run that made a version, as JSON lines."""
    with connect(url) as client:
        print_lines(client.model_log(version))
    return 0
