import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import click
import pytest

from sds_clip.app.settings import Settings
from sds_clip.cli import cli, main
from sds_clip.commands import doctor
from sds_clip.options import _MEANT, read_settings
from tests.sds_clip.command_line import exit_code, parsed
from tests.sds_clip.transcript import test_transcript  # noqa: F401

HEAVY = (
    "httpx",
    "torch",
    "open_clip",
    "transformers",
    "fastapi",
    "uvicorn",
    "pydantic",
    "PIL",
    "numpy",
    "sds_clip.app",
)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from sds_clip.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    commands = "up serve worker keys match classify embed search evaluate propose finetune adapt track"
    commands += " compare jobs workers models datasets backup restore check prune convert export doctor"
    assert re.findall(r"^  ([a-z]+) +[A-Z]", out, re.MULTILINE) == commands.split()


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"sds-clip {version('sds-clip')}\n"


def test_other_trainers_names_lead_to_options_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for name, meant in _MEANT.items():
        assert main(["finetune", name, "1"]) == 2
        assert f"Did you mean '{meant}'?" in capsys.readouterr().err
    assert main(["embed", "--learning-rate", "1"]) == 2
    assert "--lr" not in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_given_its_script(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_SDS_CLIP_COMPLETE", f"{shell}_source")
    assert main([]) == 0
    assert f"{shell}_complete" in capsys.readouterr().out


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from every_command(inner, (*path, name))


COMMANDS_BY_NAME = dict(every_command(cli))


@pytest.mark.parametrize("name", COMMANDS_BY_NAME)
def test_help_is_in_sentences_and_says_each_option(name: str) -> None:
    command = COMMANDS_BY_NAME[name]
    assert command.help
    with click.Context(command) as context:
        for parameter in command.get_params(context):
            text = getattr(parameter, "help", None)
            if not getattr(parameter, "hidden", False):
                assert text, parameter.name
                assert text[0].isupper() or text[0] == "("
                assert text[-1] in ".)" or parameter.name in ("version", "help"), text


@pytest.mark.parametrize("name", COMMANDS_BY_NAME)
def test_every_command_explains_itself_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code([*name.split(), "--help"]) == 0
    assert re.search(r"^examples:\n  sds-clip ", capsys.readouterr().out, re.MULTILINE | re.IGNORECASE)


def test_a_text_that_is_not_utf_8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["match", "a.png", "--text", "ok", "bad \udcff"]) == 2
    assert capsys.readouterr().err == "sds-clip: Text 2 is not valid UTF-8.\n"


def test_an_option_takes_every_word_up_to_the_next_option() -> None:
    words = ["match", "a.png", "--text", "a cat", "- a dash", "--json", "--text", "a dog", "--", "b.png"]
    given = parsed(words)
    assert given["text"] == ("a cat", "- a dash", "a dog")
    assert given["images"] == ("a.png", "b.png")
    assert given["as_json"]
    assert parsed(["match", "a.png", "--text=a cat", "b.png"])["images"] == ("a.png", "b.png")


def test_options_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDS_CLIP_PORT", "9001")
    monkeypatch.setenv("SDS_CLIP_HOST", "127.0.0.2")
    settings = read_settings(port=9002, host=None)
    assert (settings.port, settings.host) == (9002, "127.0.0.2")


def test_the_defaults_in_the_help_are_the_settings_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert exit_code(["serve", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    settings = Settings()
    for name in ("host", "port", "device", "precision", "threads"):
        assert f"(default: {getattr(settings, name)}, or SDS_CLIP_{name.upper()})" in shown
    assert f"(default: {settings.models[0]}, or SDS_CLIP_MODELS)" in shown
    assert "(default: none, or SDS_CLIP_KEYS_FILE)" in shown
    assert settings.keys_file is None


def test_ctrl_c_is_quiet_and_130() -> None:
    code = "import sys, time; from sds_clip.commands import doctor; from sds_clip import cli\n"
    code += "def wait(): print('running', flush=True); time.sleep(60)\n"
    code += "doctor.read_settings = wait\nsys.exit(cli.main(['doctor']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


def test_a_reader_that_leaves_is_quiet_and_141() -> None:
    code = "import sys; from sds_clip.commands import doctor; from sds_clip import cli\n"
    code += "doctor.read_settings = lambda: print('x' * 1_000_000)\nsys.exit(cli.main(['doctor']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=30), err) == (141, "")


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(doctor, "read_settings", broken)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_words_after_two_dashes_are_no_options() -> None:
    assert parsed(["match", "--text", "a cat", "--", "a.png", "--text"])["images"] == ("a.png", "--text")
