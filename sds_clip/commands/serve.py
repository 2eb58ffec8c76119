"""`sds-clip serve`: the HTTP service."""

from __future__ import annotations

import argparse

from sds_clip.errors import CliError
from sds_clip.options import (
    REFERENCES,
    Commands,
    add_command,
    add_service_options,
    add_supervised_option,
    read_settings,
    service_settings,
)
from sds_clip.up.orphans import end_with_supervisor

_DESCRIPTION = """\
Serve match, classify and embed over HTTP, and jobs, data sets and versions where SDS_CLIP_DATABASE_URL names
a database; `sds-clip up` runs it with all that belongs to it. The API's description is at /docs.

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
    add_service_options(parser)
    add_supervised_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    if args.supervised:
        end_with_supervisor()
    settings = read_settings(**service_settings(args))
    from app.errors import ConfigurationError
    from app.main import run as run_service

    try:
        run_service(settings)
    except ConfigurationError as error:
        raise CliError(str(error)) from error
    return 0
