"""`sds-clip keys`: the API keys that the service accepts."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from sds_clip.options import Group, file_option, option, read_settings
from sds_clip.table import say


@click.group(
    cls=Group,
    examples="""\
sds-clip keys create phone --scope infer --keys-file keys.json
sds-clip keys create me --scope infer --scope admin
""",
)
def keys() -> None:
    """Create API keys for the service."""


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
@file_option(
    "--keys-file",
    help="Add the key to this file, which is created if needed (default: SDS_CLIP_KEYS_FILE, or keys.json in "
    "SDS_CLIP_DATA_DIR).",
)
def create(name: str, scope: Sequence[str], keys_file: Path | None) -> int:
    """Create an API key.

    The key is printed once, on stdout. The file keeps only its SHA-256 hash. Callers send the key as
    `Authorization: Bearer KEY`; the client and `sds-clip` read it from SDS_CLIP_API_KEY.

    The scope infer allows matching, classifying and embedding. The scope train allows jobs, data sets,
    workers, and downloads of versions and logs. The scope admin allows promoting, rolling back and deleting
    versions. No scope includes another one.
    """
    settings = read_settings(keys_file=keys_file)
    path = settings.keys_file or settings.data_dir / "keys.json"
    from app.errors import ConfigurationError
    from app.keys import create_key

    try:
        key = create_key(path, name, list(scope) or ["infer"])
    except ConfigurationError as error:
        raise click.ClickException(str(error)) from error
    print(key)
    given = "" if settings.keys_file and keys_file is None else f" --keys-file {shlex.quote(str(path))}"
    say(f"Added the key to {path}. It is not shown again. Serve with it: sds-clip up{given}")
    return 0
