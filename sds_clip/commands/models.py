"""`sds-clip models`: what a service serves, its versions and aliases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sds_clip.options import PATH, Group, option
from sds_clip.remote import connect, limit_option, moment, print_json, print_lines, server_options
from sds_clip.table import table

reason_option = option("--reason", required=True, help="Say why, for the audit.")


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
@server_options
def list_models(limit: int, url: str | None, as_json: bool) -> int:
    """List what is served, and the versions, the newest first."""
    with connect(url) as client:
        found = client.models(limit=limit)
    if as_json:
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


@models.command()
@click.argument("version", metavar="VERSION", help="Its id, as `sds-clip models list` has it.")
@reason_option
@option("--alias", default="default", help="Move this name (default: default).")
@option("--force", is_flag=True, help="Promote also a version that its own job found not better.")
@server_options
def promote(version: str, reason: str, alias: str, force: bool, url: str | None, as_json: bool) -> int:
    """Point an alias at a version.

    The service swaps it in within seconds.
    """
    with connect(url) as client:
        moved = client.promote(version, alias=alias, reason=reason, force=True if force else None)
    return _print_alias(moved, as_json=as_json)


@models.command()
@click.argument("alias", metavar="[ALIAS]", default="default", help="The name to move (default: default).")
@reason_option
@server_options
def rollback(alias: str, reason: str, url: str | None, as_json: bool) -> int:
    """Point an alias at the version that it pointed at before."""
    with connect(url) as client:
        moved = client.rollback(alias, reason=reason)
    return _print_alias(moved, as_json=as_json)


@models.command()
@click.argument("version", metavar="VERSION", help="Its id, or an alias.")
@option("--out", required=True, type=PATH, metavar="FILE", help="Write this tar.")
@option("--full", is_flag=True, help="Fetch whole weights, also of a delta.")
@server_options
def download(version: str, out: Path, full: bool, url: str | None, as_json: bool) -> int:
    """Write a version's files to a tar, which local-dir: loads once unpacked."""
    with connect(url) as client:
        file = client.download(version, out, full=full)
    size_bytes = file.stat().st_size
    if as_json:
        print_json({"file": str(file), "size_bytes": size_bytes})
    else:
        print(f"{file}: {size_bytes} bytes")
    return 0


@models.command()
@click.argument("version", metavar="VERSION", help="Its id, or an alias.")
@server_options
def log(version: str, url: str | None, as_json: bool) -> int:
    """Print the log of the run that made a version, as JSON lines."""
    with connect(url) as client:
        print_lines(client.model_log(version))
    return 0


def _print_alias(alias: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
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
