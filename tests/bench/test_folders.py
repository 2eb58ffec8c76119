"""The benchmark of folders, with a small model and without peers."""

from pathlib import Path

import numpy as np
import pytest

from bench import folders
from bench.folders_embed import least_cosine
from sds_clip.models.vectors.about import About
from sds_clip.models.vectors.files import write_vectors


@pytest.mark.long
def test_quick_run_prints_every_table(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(folders.weights, "make_open_clip", lambda _: tiny_folder)

    folders.main(["--quick", "--skip-peers", "--images", "40", "--cache", str(tmp_path)])

    printed = capsys.readouterr().out
    for beginning in (
        "| 40 JPEGs, auto | images a second | of bare |\n",
        "| bare path | ",
        "| sds-clip embed, .npy | ",
        "| 10,000 | .parquet | ",
    ):
        assert beginning in printed
    assert "infinity" not in printed


def test_embeddings_of_a_peer_are_compared_image_by_image(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((10, 8), dtype=np.float32)
    ours = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    records = ((f'{{"path": "{row}.jpg", "sha256": ""}}', each.tobytes()) for row, each in enumerate(ours))
    write_vectors(tmp_path / "ours.npy", About("v", 8, "float32", "."), 10, records)
    theirs = tmp_path / "theirs.npy"

    np.save(theirs, 2 * rows)
    assert least_cosine(tmp_path / "ours.npy", theirs, 4) == pytest.approx(1)
    np.save(theirs, rows[::-1])
    with pytest.raises(RuntimeError, match="not of the same model"):
        least_cosine(tmp_path / "ours.npy", theirs, 4)
    np.save(theirs, rows[:9])
    with pytest.raises(RuntimeError, match="10 rows"):
        least_cosine(tmp_path / "ours.npy", theirs, 4)
