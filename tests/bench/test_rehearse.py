"""The rehearsal at real sizes: what it says of a process, and one teacher of a tiny shape."""

from pathlib import Path

import pytest

from bench.rehearsal_weights import make_teacher
from bench.rehearse import Run, main, run
from sds_clip.models.teacher.load import load_teacher


def test_silence_is_the_longest_time_without_a_line() -> None:
    found = Run(0, ((2.0, "begins"), (5.0, "step 1"), (6.0, "step 2")), took_s=7.0, peak_bytes=1)
    assert found.silent_s == 3.0
    assert found.said_before(1.0) == "(nothing yet)"
    assert found.said_before(5.5) == "step 1"


def test_process_is_measured_to_its_end() -> None:
    found = run("evaluate", "winoground")
    assert (found.code, found.stopped_after_s) == (2, None)
    assert "Missing option" in found.lines[-1][1]
    assert found.peak_bytes > 2**20


def test_random_teacher_is_one_that_can_be_loaded(tmp_path: Path) -> None:
    folder = make_teacher("tiny", tmp_path / "tiny")
    made_at = (folder / "model_index.json").stat().st_mtime_ns
    teacher = load_teacher(f"local-dir:{folder}", device="cpu", precision="float32", vae=True)
    assert (teacher.latent_shape, teacher.resolution_px) == ((4, 16, 16), 128)
    assert make_teacher("tiny", folder) == folder
    assert (folder / "model_index.json").stat().st_mtime_ns == made_at


@pytest.mark.long
def test_rehearsal_tells_memory_time_silences_and_stops(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--quick", "--cache", str(tmp_path), "--recipes", "sds-clip"])
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if line.startswith("| tiny | sds-clip |") and "yes" in line]
    assert "143" in row
