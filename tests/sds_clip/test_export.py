import json
from pathlib import Path

import pytest

from sds_clip.cli import main
from sds_clip.models.checkpoints.load import load_clip
from tests.deltas import save_tuned
from tests.sds_clip.transcript import test_transcript  # noqa: F401


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


def test_the_command_knows_the_formats_that_are_written() -> None:
    from sds_clip.commands.checkpoints import export
    from sds_clip.models.export.write import _WRITERS

    (choice,) = (parameter.type for parameter in export.params if parameter.name == "format")
    assert list(choice.choices) == list(_WRITERS)  # type: ignore[attr-defined]
