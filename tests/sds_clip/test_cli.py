import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from app.settings import Settings
from sds_clip.cli import cli, main
from sds_clip.commands import doctor
from sds_clip.options import _MEANT, read_settings
from tests.sds_clip.command_line import exit_code, parsed

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
    "app",
)
COMMANDS = (
    "up",
    "serve",
    "worker",
    "workers",
    "match",
    "classify",
    "evaluate",
    "propose",
    "finetune",
    "jobs",
    "models",
    "datasets",
    "convert",
    "export",
    "keys",
    "doctor",
)
NESTED = {
    "evaluate": ["evaluate", "winoground"],
    "keys": ["keys", "create"],
    "jobs": ["jobs", "watch"],
    "models": ["models", "promote"],
    "datasets": ["datasets", "upload"],
}


def run_module(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "sds_clip", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
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


def test_help_lists_every_command() -> None:
    done = run_module("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for command in COMMANDS:
        assert re.search(rf"^ +{command} ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nested = NESTED.get(command, [command])
    assert exit_code([*nested, "--help"]) == 0
    assert re.search(r"^examples:\n  sds-clip ", capsys.readouterr().out, re.MULTILINE | re.IGNORECASE)


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(["--version"]) == 0
    assert capsys.readouterr().out == f"sds-clip {version('sds-clip')}\n"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["evalute"], "'evaluate'"),
        (["evaluate", "winogroun"], "'winoground'"),
        (["jobs", "lits"], "'list'"),
        (["serve", "--prot", "9000"], "'--port'"),
        (["finetune", "--gradiant", "sds"], "'--gradient'"),
        (["finetune", "--learning-rate", "1e-5"], "Did you mean '--lr'?"),
        (["finetune", "--output_dir=runs"], "Did you mean '--out'?"),
        (["finetune", "--save_every", "5"], "Did you mean '--save-every'?"),
    ],
)
def test_what_is_mistyped_gets_a_suggestion(
    arguments: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert meant in capsys.readouterr().err


def test_other_trainers_names_lead_to_options_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    for name, meant in _MEANT.items():
        assert main(["finetune", name, "1"]) == 2
        assert f"Did you mean '{meant}'?" in capsys.readouterr().err
    assert main(["embed", "--learning-rate", "1"]) == 2
    assert "--lr" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("sds-clip conv", "convert"),
        ("sds-clip jobs wa", "watch"),
        ("sds-clip evaluate winoground --also", "--also-served-precision"),
        ("sds-clip finetune --objective sd", "sds-clip"),
    ],
)
def test_a_shell_completes_commands_options_and_choices(
    words: str, completed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_SDS_CLIP_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert main([]) == 0
    assert [line.split(",")[1] for line in capsys.readouterr().out.splitlines()] == [completed]


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


def test_an_option_takes_every_word_up_to_the_next_option() -> None:
    words = ["match", "a.png", "--text", "a cat", "- a dash", "--json", "--text", "a dog", "--", "b.png"]
    given = parsed(words)
    assert given["text"] == ("a cat", "- a dash", "a dog")
    assert given["images"] == ("a.png", "b.png")
    assert given["as_json"]
    assert parsed(["match", "a.png", "--text=a cat", "b.png"])["images"] == ("a.png", "b.png")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], ""),
        (["match"], "IMAGE"),
        (["match", "a.png"], "--text"),
        (["fly"], "'fly'"),
        (["serve", "--port", "http"], "--port"),
    ],
)
def test_wrong_usage_is_one_line_and_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sds-clip: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--port", "99999"], "SDS_CLIP_PORT"),
        (["match", "a.png", "--text", " "], " 1 "),
        (["match", "a.png", "--text", "ok", "bad \udcff"], " 2 "),
        (["classify", "a.png"], "--label"),
        (["classify", "a.png", "--label", "cat", "--templates", "a photo"], "a photo"),
        (["classify", "a.png", "--label", "cat", "--top-k", "0"], "--top-k"),
        (["classify", "a.png", "--labels-file", "none.txt"], "none.txt"),
        (
            ["evaluate", "winoground", "--model", "demo", "--data", "none"],
            "none",
        ),
        (
            ["convert", "none.pt", "--architecture", "ViT-B-32", "--out", "x"],
            "none.pt",
        ),
    ],
)
def test_a_user_s_mistake_is_one_line_and_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert exit_code(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("sds-clip: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1


def test_a_wrong_environment_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDS_CLIP_MAX_QUEUE", "many")
    assert main(["serve"]) == 2
    assert "SDS_CLIP_MAX_QUEUE" in capsys.readouterr().err


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


def test_images_after_a_greedy_option_get_the_way_to_write_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["match", "--text", "a dog", "photo.jpg"]) == 2
    assert "before the options" in capsys.readouterr().err


def test_words_after_two_dashes_are_no_options() -> None:
    assert parsed(["match", "--text", "a cat", "--", "a.png", "--text"])["images"] == ("a.png", "--text")
