"""Versions and reports in folders."""

import time
from pathlib import Path

import pytest

from app.registry.source import FileReports, ProcessReport, find_folder
from models.references import is_version

ONE, TWO = "1" * 64, "2" * 64


def test_version_is_found_by_its_whole_hash_alone(tmp_path: Path) -> None:
    (tmp_path / "versions" / ONE).mkdir(parents=True)
    (tmp_path / "other").mkdir()
    root = tmp_path / "versions"
    assert find_folder(root, ONE) == root / ONE
    for name in (TWO, ONE[:12], "", ".", "../other", str(tmp_path), f"{ONE}/", ONE + "\n"):
        assert find_folder(root, name) is None


def test_only_sha_256_in_small_letters_has_the_form_of_a_version() -> None:
    assert is_version("0123456789abcdef" * 4)
    assert not is_version("A" * 64)
    assert not is_version("a" * 63)


def test_reports_are_replaced_and_forgotten(tmp_path: Path) -> None:
    reports = FileReports(tmp_path / "reports")
    assert list(reports.read()) == []
    now = time.time()
    reports.write(ProcessReport("one", now - 1000, {}))
    reports.write(ProcessReport("two", now - 5, {"a": 1}))
    reports.write(ProcessReport("two", now, {"a": 2}))
    assert list(reports.read()) == [ProcessReport("two", now, {"a": 2})]
    with pytest.raises(ValueError, match="name"):
        reports.write(ProcessReport("../two", now, {}))
