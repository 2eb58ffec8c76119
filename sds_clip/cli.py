"""The entry point of `sds-clip`, with all commands. Every error is printed as one line.

Nothing heavy is imported until a command runs, so `--help` answers at once.

Exit codes: 0 done, 1 a check failed, 2 unusable input, 130 interrupted, 141 broken pipe, 143 terminated.
"""

import io
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import shell_complete

from sds_clip.commands.adapt import adapt
from sds_clip.commands.backup import backup, restore
from sds_clip.commands.check import check
from sds_clip.commands.checkpoints import convert, export
from sds_clip.commands.compare import compare
from sds_clip.commands.datasets import datasets
from sds_clip.commands.doctor import doctor
from sds_clip.commands.embed import embed
from sds_clip.commands.evaluate import evaluate
from sds_clip.commands.finetune import finetune
from sds_clip.commands.images import classify, match
from sds_clip.commands.jobs import jobs, workers
from sds_clip.commands.keys import keys
from sds_clip.commands.models import models
from sds_clip.commands.propose import propose
from sds_clip.commands.prune import prune
from sds_clip.commands.search import search
from sds_clip.commands.serve import serve
from sds_clip.commands.track import track
from sds_clip.commands.up import up
from sds_clip.commands.worker import worker
from sds_clip.options import Group
from sds_clip.table import printable, printable_lines

_SECTIONS = {
    "Run a service": (up, serve, worker, keys),
    "Use a model": (match, classify, embed, search, evaluate, propose, finetune, adapt, track, compare),
    "Manage a running service": (jobs, workers, models, datasets),
    "Keep what a service has made": (backup, restore, check, prune),
    "Convert weights, and check the installation": (convert, export, doctor),
}
_COMPLETE_VAR = "_SDS_CLIP_COMPLETE"


class _Root(Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{each.name:<8}", each.get_short_help_str(90)) for each in commands])


@click.group(
    "sds-clip",
    cls=_Root,
    commands=[each for commands in _SECTIONS.values() for each in commands],
    examples="""\
sds-clip up
sds-clip match cat.jpg --text "a cat" "a dog"
sds-clip classify *.jpg --label cat dog bird
sds-clip embed photos/ --out vectors.parquet
sds-clip search vectors.parquet "a red car left of a tree" --html found.html
sds-clip finetune --base demo --teacher demo --data pairs/ --steps 400 --out runs/first
sds-clip evaluate winoground --model ViT-B-32/openai --data winoground/
sds-clip doctor
eval "$(_SDS_CLIP_COMPLETE=bash_source sds-clip)"   # completion in bash; zsh_source and fish_source for other shells
""",
)
@click.version_option(package_name="sds-clip", message="sds-clip %(version)s")
def cli() -> None:
    """Serve, fine-tune and evaluate CLIP models, and match and classify images with them.

    `sds-clip COMMAND --help` describes a command. Settings can also be given in the environment (SDS_CLIP_*). An
    option overrides its environment variable.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal without UTF-8 must not make printing fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    if instruction := os.environ.get(_COMPLETE_VAR):
        return shell_complete(cli, {}, "sds-clip", _COMPLETE_VAR, instruction)
    try:
        with cli.make_context("sds-clip", list(sys.argv[1:] if argv is None else argv)) as context:
            code: int = cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        # Python flushes stdout once more at exit; give it somewhere to write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except click.ClickException as error:
        help_of = error.ctx if isinstance(error, click.UsageError) else None
        hint = f" (see `{help_of.command_path} --help`)" if help_of else ""
        return _refuse(one_line(error.format_message()) + hint)
    except _user_errors() as error:
        return _refuse(in_lines(error))
    return code


def _refuse(message: str) -> int:
    print(f"sds-clip: {message}", file=sys.stderr)
    return 2


def one_line(error: BaseException | str) -> str:
    """An error's message on one line, without control characters."""
    if isinstance(error, FileNotFoundError) and error.filename:
        text = f"There is no file or folder {error.filename}."
    elif isinstance(error, IsADirectoryError) and error.filename:
        text = f"{error.filename} is a folder, but a file is needed here."
    elif isinstance(error, PermissionError) and error.filename:
        text = f"This user has no permission to use {error.filename}; change its permissions."
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return printable(" ".join(text.split()))


def in_lines(error: BaseException) -> str:
    """Like `one_line`, but a list of problems keeps its lines, and a missing key is told where to put it."""
    from sds_clip.client.errors import AuthenticationError
    from sds_clip.models.errors import ModelError

    if isinstance(error, AuthenticationError):
        return f"{one_line(error)} To let `sds-clip` send it, set SDS_CLIP_API_KEY."
    return printable_lines(str(error)) if isinstance(error, ModelError) else one_line(error)


def _user_errors() -> tuple[type[Exception], ...]:
    from sds_clip.app.errors import ConfigurationError, ServiceError
    from sds_clip.client.errors import ClientError
    from sds_clip.models.errors import ModelError

    return ClientError, ConfigurationError, ModelError, ServiceError, OSError
