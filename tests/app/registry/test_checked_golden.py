"""Versions that this machine need not check again."""

from dataclasses import replace
from pathlib import Path

from sds_clip.app.registry.checked_golden import Checked
from sds_clip.models.clip.model import Clip


def test_checked_versions_are_known_after_a_restart_and_others_are_not(
    small_clip: Clip, tmp_path: Path
) -> None:
    file = tmp_path / "checked.txt"
    other = replace(small_clip, version="0" * 64)
    checked = Checked(file)
    assert small_clip not in checked
    for _ in range(2):
        checked.add(small_clip)

    again = Checked(file)

    assert small_clip in again
    assert other not in again
    assert replace(small_clip, precision="bfloat16") not in again
    assert len(file.read_text().splitlines()) == 1


def test_damaged_file_costs_another_check(small_clip: Clip, tmp_path: Path) -> None:
    file = tmp_path / "checked.txt"
    file.write_bytes(b"\xff\xfe")
    checked = Checked(file)
    assert small_clip not in checked


def test_folder_that_cannot_be_written_costs_no_load(small_clip: Clip, tmp_path: Path) -> None:
    checked = Checked(tmp_path / "missing" / "checked.txt")
    checked.add(small_clip)
    assert small_clip in checked
