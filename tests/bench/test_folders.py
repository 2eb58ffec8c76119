"""The benchmark of folders, with a small model."""

from pathlib import Path

import pytest

from bench import folders


@pytest.mark.long
def test_quick_run_prints_every_table(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders.weights, "make_open_clip", lambda _: tiny_folder)

    folders.main(["--quick", "--images", "40", "--cache", str(tmp_path)])

    printed = capsys.readouterr().out
    for beginning in (
        "| 40 JPEGs, auto | images a second | of bare |\n",
        "| bare path | ",
        "| sds-clip embed, .npy | ",
        "| 10,000 | .parquet | ",
    ):
        assert beginning in printed
