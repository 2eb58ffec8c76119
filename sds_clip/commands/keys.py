"""`sds-clip keys`: the API keys that the service accepts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from sds_clip.options import Group, file_option, option, read_settings
from sds_clip.table import say, table


@click.group(
    cls=Group,
    examples="""\
sds-clip keys create phone --scope infer --keys-file keys.json
sds-clip keys create me --scope infer --scope admin
sds-clip keys list
sds-clip keys delete phone
""",
)
def keys() -> None:
    """Create, list and delete API keys of the service."""


keys_file_option = file_option(
    "--keys-file",
    help="The keys file, which is created if needed (default: SDS_CLIP_KEYS_FILE, or keys.json in SDS_CLIP_DATA_DIR).",
)


@keys.command(extra="serve")
@click.argument(
    "name",
    metavar="NAME",
    help="A name for the key. The logs show this name, and you need it to revoke the key.",
)
@option(
    "--scope",
    multiple=True,
    type=click.Choice(["infer", "train", "admin"]),
    help="Give the key this scope. Repeat the option for several (default: infer).",
)
@keys_file_option
def create(name: str, scope: Sequence[str], keys_file: Path | None) -> int:
    """Create an API key.

    The key is printed once, on stdout. The file keeps only its SHA-256 hash. Callers send the key as
    `Authorization: Bearer KEY`; the client and `sds-clip` read it from SDS_CLIP_API_KEY.

    The scope infer allows matching, classifying and embedding. The scope train allows jobs, data sets,
    workers, and downloads of versions and logs. The scope admin allows promoting, rolling back and deleting
    versions. No scope includes another one.
    """
    from app.keys import create_key

    path = _file_of(keys_file)
    key = create_key(path, name, list(scope) or ["infer"])
    print(key)
    is_set = keys_file is None and read_settings().keys_file is not None
    given = "" if is_set else f" --keys-file {shlex.quote(str(path))}"
    say(f"Added the key to {path}. It is not shown again. Serve with it: sds-clip up{given}")
    return 0


@keys.command("list", extra="serve")
@keys_file_option
def list_keys(keys_file: Path | None) -> int:
    """List the names and scopes of the keys. The keys themselves are stored nowhere."""
    from app.keys import read_keys

    found = read_keys(_file_of(keys_file))
    print(table(("name", "scopes"), [[key.name, " ".join(key.scopes)] for key in found]))
    return 0


@keys.command(extra="serve")
@click.argument("name", metavar="NAME", help="The key's name; `sds-clip keys list` shows it.")
@keys_file_option
def delete(name: str, keys_file: Path | None) -> int:
    """Delete an API key. The service refuses it within a second.

    What the key made stays. Only keys with the scope admin see it then.
    """
    from app.keys import delete_key

    path = _file_of(keys_file)
    delete_key(path, name)
    say(f"Deleted the key {name} from {path}.")
    return 0


def _file_of(keys_file: Path | None) -> Path:
    settings = read_settings(keys_file=keys_file)
    return settings.keys_file or settings.data_dir / "keys.json"
