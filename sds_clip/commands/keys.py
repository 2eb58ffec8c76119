"""`sds-clip keys`: the API keys that the service accepts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from sds_clip.options import Group, file_option, option, read_settings


@click.group(
    cls=Group,
    examples="""\
sds-clip keys create phone --scope infer --keys-file keys.json
sds-clip keys create me --scope infer --scope admin
""",
)
def keys() -> None:
    """Make API keys for the service."""


@keys.command(extra="serve")
@click.argument("name", metavar="NAME", help="Whose key it is, for the logs and for revoking it.")
@option(
    "--scope",
    multiple=True,
    type=click.Choice(["infer", "train", "admin"]),
    help="Allow this. May be repeated (default: infer).",
)
@file_option(
    "--keys-file",
    help="Add it to this file (default: SDS_CLIP_KEYS_FILE, or keys.json in SDS_CLIP_DATA_DIR).",
)
def create(name: str, scope: Sequence[str], keys_file: Path | None) -> int:
    """Make a key.

    The key is printed once, on stdout. The file keeps only its SHA-256 hash. Callers send it as `Authorization:
    Bearer KEY`.
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
    hint = "" if settings.keys_file and keys_file is None else f" Serve with --keys-file {path}."
    print(f"sds-clip: added to {path}; the key is not shown again.{hint}", file=sys.stderr)
    return 0
