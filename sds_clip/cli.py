"""The entry point of `sds-clip`: one parser, a module a command, errors as one line.

Nothing heavy is imported until a command runs, so `--help` answers at once.

Exit codes: 0 done, 1 a check failed, 2 the input cannot be used, 130 interrupted, 141 the reader has gone,
143 terminated.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from sds_clip.commands import (
    classify,
    convert,
    datasets,
    doctor,
    evaluate,
    export,
    finetune,
    jobs,
    keys,
    match,
    models,
    serve,
    up,
    worker,
    workers,
)
from sds_clip.errors import CliError
from sds_clip.options import Parser
from sds_clip.table import printable, printable_lines

_COMMANDS = (
    up,
    serve,
    worker,
    workers,
    match,
    classify,
    evaluate,
    finetune,
    jobs,
    models,
    datasets,
    convert,
    export,
    keys,
    doctor,
)

_EPILOG = """\
examples:
  sds-clip up
  sds-clip match cat.jpg --text "a cat" "a dog"
  sds-clip classify *.jpg --label cat dog bird
  sds-clip finetune --base demo --teacher demo --data pairs/ --steps 400 --out runs/first
  sds-clip evaluate winoground --model ViT-B-32/openai --data winoground/
  sds-clip doctor

`sds-clip COMMAND --help` says more about each. Settings come from the environment (SDS_CLIP_*), and options
come before them.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit; give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except _user_errors() as error:
        print(f"sds-clip: {in_lines(error)}", file=sys.stderr)
        return 2
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command."""
    parser = Parser(
        prog="sds-clip",
        description="Serve a CLIP model, teach it composition, measure it, and match and classify images with it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sds-clip {installed_version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in _COMMANDS:
        module.add(commands)
    return parser


def installed_version() -> str:
    """The version of the installed package."""
    try:
        return version("sds-clip")
    except PackageNotFoundError:
        return "(not installed)"


def one_line(error: BaseException) -> str:
    """An error's message without line breaks or control characters."""
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return printable(" ".join(text.split()))


def in_lines(error: BaseException) -> str:
    """The same, but a list of problems keeps its lines."""
    from models.errors import ModelError

    if not isinstance(error, ModelError):
        return one_line(error)
    return printable_lines(str(error))


def _user_errors() -> tuple[type[Exception], ...]:
    from app.errors import ServiceError
    from models.errors import ModelError
    from sds_clip.client.errors import ClientError

    return CliError, ClientError, ModelError, ServiceError, OSError
