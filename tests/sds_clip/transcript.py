"""Commands with what they print. A test_NAME.py that imports `test_transcript` runs transcripts/NAME.txt.

Each section of such a file is a test. It has a title, the names of the fixtures that it needs, if any, and commands:

    # A text file is no checkpoint
    given: photos
    $ sds-clip convert notes.txt --architecture ViT-B-32 --out out  # refused: notes.txt ...
    $ sds-clip match a.png none.png --text "a cat"  # 2
    image   cosine  probability  text  best
    ...
    2> sds-clip: none.png: There is no such file.

`# 2` is the exit code, where it is not 0. What goes to stderr, but for progress bars, begins with `2>` and stands after
what goes to stdout. A command that is refused ends with 2 and prints nothing but one line to stderr: `sds-clip: ` and
the message. `...` stands for any text in a line and, alone in a line, for any lines. `sds-clip` runs in this process,
and any other command in a shell. All are in a folder of their own, which has a model, `local-dir:tiny`.
"""

import difflib
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sds_clip.cli import main


def without(package: str) -> Any:
    """A fixture: the package is not installed."""

    @pytest.fixture
    def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, package, None)

    return hidden


def sections(test_file: Path) -> Iterator[Any]:
    file = test_file.parent / "transcripts" / f"{test_file.stem.removeprefix('test_')}.txt"
    _, *found = re.split(r"^# (.+)\n", file.read_text(encoding="utf-8"), flags=re.M)
    for title, text in zip(found[::2], found[1::2], strict=True):
        yield pytest.param(f"{text.strip()}\n", id=title)


def run(command: str) -> int:
    """Run a command, perhaps with variables before it, and return its exit code."""
    words = shlex.split(os.path.expandvars(command))
    variables = list(itertools.takewhile(re.compile(r"[A-Z_]+=").match, words))
    program, *arguments = words[len(variables) :]
    if program == "sds-clip":
        with pytest.MonkeyPatch.context() as patch:
            for each in variables:
                patch.setenv(*each.split("=", 1))
            return main(arguments)
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


def shown(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a transcript has of the command."""
    code = run(command)
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line and "%|" not in line]
    if code == 2 and not out and len(lines) == 1 and lines[0].startswith("sds-clip: "):
        return f"$ {command}  # refused: {lines[0].removeprefix('sds-clip: ')}\n"
    ended = f"  # {code}" if code else ""
    return f"$ {command}{ended}\n{out}" + "".join(f"2> {line}\n" for line in lines)


def pattern(transcript: str) -> str:
    return "".join(
        r"(?:.*\n)*" if line == "...\n" else re.escape(line).replace(r"\.\.\.", ".*")
        for line in transcript.splitlines(keepends=True)
    )


def test_transcript(
    transcript: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    Path("tiny").symlink_to(tiny_folder)
    given, *commands = re.split(r"^\$ (.+?)(?:  # .*)?\n", transcript, flags=re.M)
    for name in given.removeprefix("given:").split():
        request.getfixturevalue(name)
    capsys.readouterr()
    found = given + "".join(shown(command, capsys) for command in commands[::2])
    if not re.fullmatch(pattern(transcript), found):
        lines = (text.splitlines(keepends=True) for text in (transcript, found))
        pytest.fail("".join(difflib.unified_diff(*lines, "transcript", "found")), pytrace=False)
