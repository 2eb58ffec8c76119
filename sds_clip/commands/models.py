"""`sds-clip models`: a service's models, versions and aliases."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.options import Group, file_option, option
from sds_clip.remote import connect, limit_option, moment, print_lines, remote, url_option
from sds_clip.table import say, size_text, table, tell

if TYPE_CHECKING:
    from sds_clip.client import Client

version_argument = click.argument("version", metavar="VERSION", help="The version's id, or an alias of it.")
reason_option = option(
    "--reason", required=True, metavar="TEXT", help="Why you do this. The audit log keeps it."
)


def _print_list(found: dict[str, Any]) -> None:
    served = [
        [model["name"], model["generation"], model["architecture"], model["precision"], model["version"]]
        for model in found["models"]
    ]
    print(table(["served as", "generation", "architecture", "precision", "version"], served))
    if found["registry"] == "away":
        print("\nThe versions are not shown, because the service cannot read its database at the moment.")
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
    tell(
        f"The alias {alias['name']} points to version {alias['version']} (generation {alias['generation']})."
    )


def _print_promoted(alias: dict[str, Any]) -> None:
    _print_alias(alias)
    say(f'To undo this, run: sds-clip models rollback {shlex.quote(alias["name"])} --reason "why"')


def _print_written(written: dict[str, Any]) -> None:
    size = size_text(written["size_bytes"])
    tell(f"Wrote {written['file']} ({size}). Unpack it, and serve the folder in it: local-dir:FOLDER")


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
    """List, promote, roll back and download the versions of a service, and show their logs."""


@models.command("list")
@limit_option
@remote(_print_list)
def list_models(client: Client, limit: int) -> Any:
    """List the served models, and the versions, newest first."""
    return client.models(limit=limit)


@models.command()
@click.argument("version", metavar="VERSION", help="The version's id; `sds-clip models list` shows it.")
@reason_option
@option("--alias", default="default", metavar="ALIAS", help="Change this alias.")
@option("--force", is_flag=True, help="Promote the version even if its own job found that it is not better.")
@option(
    "--owner",
    metavar="KEY",
    help="Give the alias to the key of this name, which may then move it to its own versions. '' takes it back.",
)
@remote(_print_promoted)
def promote(client: Client, version: str, reason: str, alias: str, force: bool, owner: str | None) -> Any:
    """Point an alias to a version.

    The service loads and serves the version within seconds, without a restart.
    """
    return client.promote(version, alias=alias, reason=reason, owner=owner, force=True if force else None)


@models.command()
@click.argument("alias", metavar="[ALIAS]", default="default", help="The alias to change (default: default).")
@reason_option
@remote(_print_alias)
def rollback(client: Client, alias: str, reason: str) -> Any:
    """Point an alias back to its previous version."""
    return client.rollback(alias, reason=reason)


@models.command()
@version_argument
@file_option("--out", required=True, help="Write this tar file. Its folder is created if needed.")
@option("--full", is_flag=True, help="Download full weights. By default, a delta is downloaded as a delta.")
@remote(_print_written)
def download(client: Client, version: str, out: Path, full: bool) -> Any:
    """Download a version as a tar file.

    The tar holds one folder. Unpack it, and load the folder as local-dir:FOLDER.
    """
    file = client.download(version, out, full=full)
    return {"file": str(file), "size_bytes": file.stat().st_size}


@models.command()
@version_argument
@url_option
def log(version: str, url: str | None) -> int:
    """Print the training log of a version as JSON lines."""
    with connect(url) as client:
        print_lines(client.model_log(version))
    return 0
