"""`sds-clip serve`: the HTTP service."""

from __future__ import annotations

import argparse
from pathlib import Path

from sds_clip.errors import CliError
from sds_clip.options import REFERENCES, Commands, add_command, add_compute_options, read_settings

_DESCRIPTION = """\
Serve match, classify and embed over HTTP. The API's description is at /docs.

Every setting of the service can be given in the environment as SDS_CLIP_NAME (SDS_CLIP_MAX_QUEUE=512); an
option here comes before it. Without a keys file the service listens on this machine only.
"""

_EPILOG = (
    REFERENCES
    + """
examples:
  sds-clip serve
  sds-clip serve --model ViT-B-32/openai --model demo --port 9000
  sds-clip keys create phone --scope infer --keys-file keys.json
  sds-clip serve --host 0.0.0.0 --keys-file keys.json
"""
)


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "serve", "serve models over HTTP", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, or SDS_CLIP_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on (default: 8000, or SDS_CLIP_PORT)")
    parser.add_argument(
        "--model",
        action="append",
        metavar="REF",
        help="model to serve; repeat for more, the first is the default (default: demo, or SDS_CLIP_MODELS)",
    )
    add_compute_options(parser)
    parser.add_argument(
        "--keys-file",
        type=Path,
        metavar="FILE",
        help="API keys, made by `sds-clip keys create` (default: none, or SDS_CLIP_KEYS_FILE)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="compute threads, 0 for one a core (default: 0, or SDS_CLIP_THREADS)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    settings = read_settings(
        host=args.host,
        port=args.port,
        models=args.model,
        device=args.device,
        precision=args.precision,
        keys_file=args.keys_file,
        threads=args.threads,
    )
    from app.auth import ConfigurationError
    from app.main import run as run_service

    try:
        run_service(settings)
    except ConfigurationError as error:
        raise CliError(str(error)) from error
    return 0
