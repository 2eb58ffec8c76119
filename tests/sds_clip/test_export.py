import json
from pathlib import Path

import pytest

from models.checkpoints import load_clip
from sds_clip.cli import main
from tests.deltas import save_tuned


@pytest.fixture
def delta(checkpoint: Path, tmp_path: Path) -> Path:
    return save_tuned(tmp_path / "delta", load_clip(f"local-dir:{checkpoint}", precision="float32"))


def matched(photo: Path, reference: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    options = ["--model", reference, "--precision", "float32", "--json"]
    assert main(["match", str(photo), "--text", "a dog", "a red cat", *options]) == 0
    answer = json.loads(capsys.readouterr().out)
    answer["model"].pop("name")
    answer["model"].pop("architecture")
    return dict(answer)


@pytest.mark.parametrize(("options", "suffix"), [([], ""), (["--alpha", "0.7"], "#alpha=0.7")])
def test_the_exported_delta_answers_as_the_delta(
    options: list[str],
    suffix: str,
    delta: Path,
    photos: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "whole"
    assert main(["export", str(delta), "--out", str(out), *options]) == 0
    reference = capsys.readouterr().out.strip()
    assert reference == f"local-dir:{out}"
    assert matched(photos[0], reference, capsys) == matched(photos[0], f"local-dir:{delta}{suffix}", capsys)


def test_a_relative_folder_needs_no_prefix(
    delta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", "delta", "--out", "whole"]) == 0
    assert (tmp_path / "whole" / "open_clip_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none-such", "--out", "{out}"], "none-such"),
        (["{delta}", "--out", "{delta}"], "exists"),
        (["{delta}", "--out", "{out}", "--alpha", "1.5"], "1.5"),
        (["demo", "--out", "{out}", "--alpha", "0.5"], "demo"),
        (["{run}", "--out", "{out}"], "{delta}"),
    ],
)
def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(
    arguments: list[str], message: str, delta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"out": tmp_path / "out", "delta": delta, "run": delta.parent}
    named = [argument.format(**places) for argument in arguments]
    assert main(["export", *named]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message.format(**places) in error
    assert [left.name for left in tmp_path.iterdir()] == ["delta"]


def test_another_format_is_a_folder_that_explains_itself(
    delta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "for-transformers"
    assert main(["export", str(delta), "--format", "transformers", "--out", str(out)]) == 0
    written = capsys.readouterr()
    assert written.out == f"{out}\n"
    assert "README.md says how to load it" in written.err
    assert "local-dir:" not in written.err
    assert json.loads((out / "config.json").read_text())["architectures"] == ["CLIPModel"]


def test_an_unknown_format_and_results_of_another_version_are_refused(
    delta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "delta" / "results.json"
    other.write_text(
        '{"benchmark": "winoground", "metrics": {}, "provenance": {"model_version": "00", "data_hash": "1"}}'
    )
    out = ["--out", str(tmp_path / "out")]
    for options, message in ((["--format", "gguf"], "gguf"), (["--results", str(other)], "version 00")):
        assert main(["export", str(delta), *options, *out]) == 2
        assert message in capsys.readouterr().err
    assert [left.name for left in tmp_path.iterdir()] == ["delta"]


def test_the_command_knows_the_formats_that_are_written() -> None:
    from models.export import _WRITERS
    from sds_clip.commands.checkpoints import export

    (choice,) = (parameter.type for parameter in export.params if parameter.name == "format")
    assert list(choice.choices) == list(_WRITERS)  # type: ignore[attr-defined]
