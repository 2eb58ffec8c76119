"""The reference of the command line: every command with its help, as it prints it."""

from collections.abc import Iterator

import click

from sds_clip.cli import cli

PAGE = """\
# Command line

Every command prints this with `--help`. Exit codes: 0 done, 1 a check failed, 2 unusable input, 130 interrupted.

{commands}
"""
WIDTH = 100


def page() -> str:
    return PAGE.format(commands="\n".join(map(_section, contexts())))


def contexts(command: click.Command = cli, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context of every command, groups before their own commands, in the order of the help."""
    context = click.Context(command, info_name=command.name, parent=parent, terminal_width=WIDTH)
    yield context
    if isinstance(command, click.Group):
        for child in command.commands.values():
            if not child.hidden:
                yield from contexts(child, context)


def _section(context: click.Context) -> str:
    text = click.unstyle(context.command.get_help(context))
    return f"## {context.command_path}\n\n```text\n{text}\n```\n"
