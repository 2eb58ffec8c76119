"""What the docs tell a reader to type is there: commands and their options, targets of make, settings, metrics."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sds_clip.app.retired import RETIRED
from sds_clip.app.settings import Settings
from sds_clip.cli import cli
from sds_clip.worker.config import OWN_VARIABLES, WorkerConfig
from tests.docs.commands import DOCS, PAGES, ROOT, blocks

OF_CLIENTS = {"url", "api_key", "complete"}
OF_IMAGES = {"commit"}
"""What a Dockerfile sets."""

OTHERS = {"install", "kubectl", "systemctl", "useradd"}
"""Programs for which sds-clip is the name of a namespace, a unit, a user or a group. `docker build` names an image."""

NOT_COMMANDS = re.compile(r"<<'?(\w+)'?.*?^\1$|(?<!\S)# .*?$", re.DOTALL | re.MULTILINE)
"""Here documents and comments."""
OPERATORS = "();<>|&\n"


def commands(code: str) -> Iterator[list[str]]:
    """The simple commands of a block of shell."""
    text = NOT_COMMANDS.sub("", code).replace("\\\n", " ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=OPERATORS)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    found: list[str] = []
    for word in [*lexer, "\n"]:
        if not set(word) <= set(OPERATORS):
            found.append(word)
        elif found:
            yield found
            found = []


def arguments_of_sds_clip(command: list[str]) -> list[str] | None:
    if command[0] in OTHERS or command[:2] == ["docker", "build"]:
        return None
    for place, word in reversed([*enumerate(command)]):
        if word.rpartition("/")[2] == "sds-clip" or (word == "sds_clip" and command[place - 1] == "-m"):
            return command[place + 1 :]
    return None


def parse(arguments: list[str]) -> None:
    """Parse as the program does, without running anything. An ellipsis stands for more arguments."""
    is_shortened = "..." in arguments
    arguments = [word for word in arguments if word != "..."]
    context, command = click.Context(cli, info_name="sds-clip"), cli
    while isinstance(command, click.Group):
        if not arguments or arguments[0].startswith("-"):
            return
        name, command, arguments = command.resolve_command(context, arguments)
        assert name is not None
        assert command is not None
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, parent=context)
    if "--help" not in arguments:
        command.make_context(name, arguments, parent=context, resilient_parsing=is_shortened)


def shell(page: Path) -> Iterator[list[str]]:
    for block in blocks(page):
        if block.language == "sh":
            yield from commands(block.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_sds_clip_and_their_options_are_there(page: Path) -> None:
    for command in shell(page):
        arguments = arguments_of_sds_clip(command)
        if arguments is not None:
            try:
                parse(arguments)
            except click.ClickException as error:
                pytest.fail(f"{shlex.join(command)}: {error.format_message()}")


def test_the_check_finds_what_is_wrong() -> None:
    for wrong in ("sds-clip jbs list", "sds-clip jobs list --stat x", "sds-clip worker --queue train"):
        (command,) = commands(wrong)
        arguments = arguments_of_sds_clip(command)
        assert arguments is not None
        with pytest.raises(click.ClickException):
            parse(arguments)


def test_targets_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {command[1] for page in PAGES for command in shell(page) if command[0] == "make"}
    assert "run" in named
    assert named <= targets


def test_settings_are_there() -> None:
    known = {*Settings.model_fields, *WorkerConfig.__dataclass_fields__} - RETIRED
    known |= {*OWN_VARIABLES.values(), *OF_CLIENTS, *OF_IMAGES}
    for page in PAGES:
        if page.name == "upgrade.md":
            known |= RETIRED
        named = re.findall(r"SDS_CLIP_([A-Z_]+[A-Z])", page.read_text(encoding="utf-8"))
        assert {name.lower() for name in named} <= known, page


def exported_metrics() -> set[str]:
    """The names in the sources, of metrics and of gauges that are made at a scrape."""
    sources = "".join(
        file.read_text(encoding="utf-8")
        for folder in ("app", "worker")
        for file in (ROOT / folder).rglob("*.py")
    )
    kept = re.findall(r'\b(?:[Cc]ounter|Gauge|[Hh]istogram)\(\s*"sds_clip_(\w+)"', sources)
    return {*kept, *re.findall(r'\b(?:gauge|counter)\(\s*"(?!sds_clip_)(\w+)"', sources)}


def named_metrics(text: str) -> set[str]:
    return {re.sub("_(total|bucket|sum|count)$", "", name) for name in re.findall(r"\bsds_clip_(\w+)", text)}


def test_every_metric_is_documented_and_every_documented_one_is_there() -> None:
    page = (DOCS / "how-to" / "monitor.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(sds_clip_\w+)` \|", page, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert named_metrics(" ".join(rows)) == exported_metrics()
    assert named_metrics(page) == exported_metrics()


def test_dashboards_and_alerts_name_metrics_that_are_there_and_the_alerts_are_documented() -> None:
    folder = ROOT / "docker" / "monitoring"
    for file in (folder / "alerts.yml", *(folder / "grafana" / "dashboards").glob("*.json")):
        assert named_metrics(file.read_text(encoding="utf-8")) <= exported_metrics(), file
    rules = re.findall(r"- alert: (\w+)", (folder / "alerts.yml").read_text(encoding="utf-8"))
    page = (DOCS / "how-to" / "monitor.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(SdsClip\w+)` \|", page, re.MULTILINE) == rules
