"""`sds-clip models`: a service's models, versions and aliases."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.options import file_option, group, option, wait_option
from sds_clip.remote import connect, list_options, moment, print_lines, remote, url_option
from sds_clip.table import say, size_text, table, tell

if TYPE_CHECKING:
    from sds_clip.client import Client

version_argument = click.argument(
    "version", metavar="VERSION", help="The version's id or its beginning, or an alias of it."
)
alias_argument = click.argument(
    "alias", metavar="[ALIAS]", default="default", help="The alias to change (default: default)."
)
reason_option = option(
    "--reason", required=True, metavar="TEXT", help="Why you do this. The audit log keeps it."
)


def _code(alias: dict[str, Any]) -> int:
    return 1 if alias["served_by_all"] is False else 0


def _print_list(found: dict[str, Any]) -> None:
    columns = ("generation", "architecture", "precision", "version")
    served = [[model["name"], *(model[column] for column in columns)] for model in found["models"]]
    print(table(["served as", *columns], served))
    if found["registry"] == "away":
        print("\nThe versions are not shown, because the service cannot read its database at the moment.")
    elif found["registry"] == "read":
        versions = [_line(version) for version in found["versions"]]
        print()
        print(table(["version", "aliases", "status", "base", "bytes", "created", "job"], versions))
        for alias in found["aliases"]:
            _print_lock(alias)


def _line(version: dict[str, Any]) -> list[object]:
    about = version["id"], " ".join(version["aliases"]), version["status"], version["base"]
    return [*about, version["size_bytes"], moment(version["created_at"]), version["job_id"]]


def _print_alias(alias: dict[str, Any]) -> None:
    tell(
        f"The alias {alias['name']} points to version {alias['version']} (generation {alias['generation']})."
    )
    _print_lock(alias)


def _print_lock(alias: dict[str, Any]) -> None:
    if (lock := alias["lock"]) is not None:
        tell(
            f"The alias {alias['name']} is locked. {lock['who']} locked it at {moment(lock['at'])}: {lock['why']}"
        )


def _print_removed(alias: dict[str, Any]) -> None:
    tell(f"The alias {alias['name']} is removed. It pointed to version {alias['version']}, which stays.")


def _print_moved(alias: dict[str, Any]) -> None:
    """Print the alias and, after a wait, which processes serve it."""
    _print_alias(alias)
    processes = alias["processes"]
    if processes is not None:
        columns = ("process", "state", "version", "generation", "error")
        print(table(columns, [[each[column] for column in columns] for each in processes]))
        serving = sum(each["state"] == "serving" for each in processes)
        say(f"Live processes that serve it: {serving} of {len(processes)}.")
    elif alias["served_by_all"] is False:
        say(
            "The service cannot read the reports of its other processes, so it does not know which of them serve it."
        )


def _print_promoted(alias: dict[str, Any]) -> None:
    _print_moved(alias)
    if alias["previous"] is not None:
        say(
            f"To go back to version {alias['previous']}, run: "
            f'sds-clip models rollback {shlex.quote(alias["name"])} --reason "why"'
        )


def _print_written(written: dict[str, Any]) -> None:
    size = size_text(written["size_bytes"])
    tell(f"Wrote {written['file']} ({size}). Unpack it, and serve the folder in it: local-dir:FOLDER")


@group(
    examples="""\
sds-clip models list
sds-clip models promote VERSION --reason "better on Winoground" --wait 30
sds-clip models rollback default --reason "worse in production"
sds-clip models lock default --reason "release freeze"
sds-clip models remove-alias canary --reason "the trial is over"
sds-clip models download default --out better.tar
sds-clip models log VERSION | jq .loss
""",
)
def models() -> None:
    """List, promote, roll back and download the versions of a service, lock and remove aliases, and show logs."""


@models.command("list")
@option(
    "--status",
    type=click.Choice(["ready", "deleted"]),
    help="List only versions with this status (default: ready).",
)
@option(
    "--base",
    metavar="VERSION",
    help="List only deltas of this version: its id or the beginning of it, or a name that is served.",
)
@option(
    "--metadata",
    multiple=True,
    metavar="KEY:VALUE",
    help="List only versions whose job has this in its metadata. Repeat it for several keys.",
)
@list_options
@remote(_print_list)
def list_models(client: Client, **filters: Any) -> Any:
    """List the served models, and the versions, newest first. A version's names are its id and its aliases."""
    return client.models(**filters)


@models.command()
@click.argument(
    "version",
    metavar="VERSION",
    help="The version's id, or at least 8 digits of its beginning; `sds-clip models list` shows it.",
)
@reason_option
@option("--alias", default="default", metavar="ALIAS", help="Change this alias.")
@option(
    "--force",
    is_flag=True,
    default=None,
    help="Promote the version even if its own job found that it is not better.",
)
@option(
    "--owner",
    metavar="KEY",
    help="Give the alias to the key of this name, which may then move it to its own versions. '' takes it back.",
)
@wait_option
@remote(_print_promoted, code=_code)
def promote(client: Client, version: str, **options: Any) -> Any:
    """Point an alias to a version.

    The service loads and serves the version within seconds, without a restart.
    """
    return client.promote(version, **options)


@models.command()
@alias_argument
@reason_option
@wait_option
@remote(_print_moved, code=_code)
def rollback(client: Client, alias: str, **options: Any) -> Any:
    """Point an alias back to the version before its last promotion.

    Each further rollback goes one version further back. To go forward, promote a version.
    """
    return client.rollback(alias, **options)


@models.command()
@alias_argument
@reason_option
@remote(_print_alias)
def lock(client: Client, alias: str, reason: str) -> Any:
    """Keep an alias where it is.

    Until it is unlocked, no promotion, rollback or job moves it. --force does not either.
    """
    return client.lock(alias, reason=reason)


@models.command()
@alias_argument
@reason_option
@remote(_print_alias)
def unlock(client: Client, alias: str, reason: str) -> Any:
    """Let an alias be moved again."""
    return client.unlock(alias, reason=reason)


@models.command("remove-alias")
@click.argument("alias", metavar="ALIAS", help="The alias to remove. `default` cannot be removed.")
@reason_option
@remote(_print_removed)
def remove_alias(client: Client, alias: str, reason: str) -> Any:
    """Remove an alias. Its version stays.

    Within seconds, the service answers no more for the name. To create the alias again, promote a version.
    """
    return client.remove_alias(alias, reason=reason)


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
