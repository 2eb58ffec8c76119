"""The reference of the command line: every command with its help, options and examples, from click."""

import inspect
import re
from collections.abc import Iterator

import click

from sds_clip.cli import cli
from tools.reference.markdown import table

PAGE = """\
# Command line

Every command prints this with `--help`. Exit codes: 0 done, 1 a check failed, 2 unusable input, 130 interrupted.

{commands}
"""


def page() -> str:
    return PAGE.format(commands="\n".join(map(_section, contexts())))


def contexts(command: click.Command = cli, parent: click.Context | None = None) -> Iterator[click.Context]:
    """A context of every command, groups before their own commands, in the order of the help."""
    context = click.Context(command, info_name=command.name, parent=parent)
    yield context
    if isinstance(command, click.Group):
        for child in command.commands.values():
            if not child.hidden:
                yield from contexts(child, context)


def _section(context: click.Context) -> str:
    command = context.command
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}", _prose(command.help or ""), f"```text\n{usage}\n```"]
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            title = getattr(
                parameter, "section", "Arguments" if isinstance(parameter, click.Argument) else "Options"
            )
            sections.setdefault(title, []).append((f"`{record[0]}`", _escaped(record[1])))
    for title, records in sections.items():
        parts += [f"**{title}**", table(("", "meaning"), records)]
    if examples := getattr(command, "examples", ""):
        parts += ["**Examples**", f"```sh\n{examples.rstrip()}\n```"]
    return "\n\n".join(part.rstrip() for part in parts if part) + "\n"


def _prose(text: str) -> str:
    """Paragraphs. What click prints as it stands, after a line of \\b, becomes a block of code."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(
        f"```text\n{each.removeprefix(chr(8)).strip(chr(10))}\n```"
        if each.startswith("\b")
        else _escaped(each)
        for each in paragraphs
    )


def _escaped(text: str) -> str:
    """Without what Markdown would take for emphasis or tags, outside of code."""
    return re.sub(r"(`[^`]*`)|([*_<>])", lambda found: found[1] or f"\\{found[2]}", text)
