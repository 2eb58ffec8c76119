"""What the README and the documents name is there: files, links, commands with their options, variables.

The decisions are left out, because they may speak of what was.
"""

import dataclasses
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from app.jobs.limits import JobLimits
from app.settings import Settings
from sds_clip.cli import cli
from worker.config import OWN_VARIABLES, WorkerConfig

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "demo" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("app", "bench", "demo", "docker", "docs", "models", "sds_clip", "tests", "tools", "worker")

on_each = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(ROOT)))


@cache
def files() -> list[str]:
    return [f"/{file.relative_to(ROOT)}" for folder in FOLDERS for file in (ROOT / folder).rglob("*.*")]


def code(document: Path) -> str:
    """What stands in code blocks and between backticks, with continued lines joined."""
    text = document.read_text().replace("\\\n", " ")
    fenced, indented = (
        re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE),
        re.compile(r"(?m)^    .*$"),
    )
    prose = indented.sub("", fenced.sub("", text))
    spans = [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", prose)]
    return "\n".join([*fenced.findall(text), *indented.findall(fenced.sub("", text)), *spans])


@on_each
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    assert [each for each in targets if ":" not in each and not (document.parent / each).exists()] == []


@on_each
def test_sources_that_are_named_exist(document: Path) -> None:
    """By their path, or by the end of it where the folder is clear."""
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "", document.read_text())
    sources = set(re.findall(r"(?<![\w./-])[\w./-]+\.py\b", text))
    assert {each for each in sources if not any(file.endswith(f"/{each}") for file in files())} == set()
    folders = set(re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/(?:[\w-]+/)*(?![\w.*-])", text))
    assert {each for each in folders if not (ROOT / each).is_dir()} == set()


@on_each
def test_make_has_the_targets(document: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z][a-z-]+)", code(document))) - set(targets) == set()


@on_each
def test_modules_that_are_run_exist(document: Path) -> None:
    modules = set(re.findall(r"\bpython -m ((?:bench|demo|tools)[\w.]*)", code(document)))
    assert {each for each in modules if importlib.util.find_spec(each) is None} == set()


def command_lines(document: Path) -> Iterator[list[str]]:
    for line in re.findall(r"(?:\bsds-clip|-m sds_clip) ([a-z-][^|&;#)\n]*)", code(document)):
        yield line.split()


@on_each
def test_command_line_has_the_commands_and_options(document: Path) -> None:
    unknown = []
    for words in command_lines(document):
        command: click.Command = cli
        context = click.Context(cli)
        while isinstance(command, click.Group) and words and not words[0].startswith("-"):
            found = command.get_command(context, words[0])
            if found is None:
                break
            command, words = found, words[1:]
        if isinstance(command, click.Group) and words and not words[0].startswith("-"):
            unknown.append(words[0])
        options = {
            name for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)
        }
        unknown += [word for word in words if word.startswith("--") and word.split("=")[0] not in options]
    assert unknown == []


@on_each
def test_variables_that_are_named_are_read(document: Path) -> None:
    fields = {each.name for made in (WorkerConfig, JobLimits) for each in dataclasses.fields(made)}
    known = fields | set(Settings.model_fields) | set(OWN_VARIABLES.values())
    known |= {"url", "api_key"}  # the client's
    known |= {"complete"}  # click's, for the shell
    named = re.findall(r"SDS_CLIP_([A-Z_]+)", document.read_text())
    assert {name.lower() for name in named} - known == set()
