"""`sds-clip keys`: the API keys that the service accepts."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sds_clip.errors import CliError
from sds_clip.options import Commands, add_command, read_settings

_DESCRIPTION = """\
Make an API key and print it, once, on stdout. The file keeps only its SHA-256 hash. Callers send it as
`Authorization: Bearer KEY`.
"""

_EPILOG = """\
examples:
  sds-clip keys create phone --scope infer --keys-file keys.json
  sds-clip keys create me --scope infer --scope admin
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "keys",
        "make API keys for the service",
        description="Make API keys for the service.",
        epilog="`sds-clip keys create --help` says more.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    create = add_command(actions, "create", "make a key", description=_DESCRIPTION, epilog=_EPILOG)
    create.add_argument("name", metavar="NAME", help="whose key it is, for the logs and for revoking it")
    create.add_argument(
        "--scope",
        action="append",
        choices=("infer", "train", "admin"),
        help="what it allows; may be repeated (default: infer)",
    )
    create.add_argument(
        "--keys-file",
        type=Path,
        metavar="FILE",
        help="file to add it to (default: SDS_CLIP_KEYS_FILE, or keys.json in SDS_CLIP_DATA_DIR)",
    )
    create.set_defaults(run=run_create)


def run_create(args: argparse.Namespace) -> int:
    """Print the new key on stdout, and on stderr what to do with it."""
    settings = read_settings(keys_file=args.keys_file)
    path = settings.keys_file or settings.data_dir / "keys.json"
    from app.errors import ConfigurationError
    from app.keys import create_key

    try:
        key = create_key(path, args.name, args.scope or ["infer"])
    except ConfigurationError as error:
        raise CliError(str(error)) from error
    print(key)
    hint = "" if settings.keys_file and args.keys_file is None else f" Serve with --keys-file {path}."
    print(f"sds-clip: added to {path}; the key is not shown again.{hint}", file=sys.stderr)
    return 0
