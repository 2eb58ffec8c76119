"""Aliases, versions and reports in files."""

import time
from pathlib import Path

import pytest

from app.registry.files import FileAliases, FileReports, FolderVersions
from app.registry.ports import AliasState, ProcessReport
from models.references import is_version

ONE, TWO = "1" * 64, "2" * 64


def test_alias_grows_its_generation_with_every_move_and_remembers_the_version_before(tmp_path: Path) -> None:
    aliases = FileAliases(tmp_path / "new" / "aliases.json")
    assert list(aliases.read()) == []
    assert aliases.point("default", ONE) == AliasState("default", ONE, 1)
    assert aliases.point("default", TWO) == AliasState("default", TWO, 2, previous=ONE)
    assert aliases.roll_back("default") == AliasState("default", ONE, 3, previous=TWO)
    aliases.point("canary", TWO)
    assert {alias.name: alias.generation for alias in aliases.read()} == {"default": 3, "canary": 1}


def test_alias_without_a_version_before_cannot_be_rolled_back(tmp_path: Path) -> None:
    aliases = FileAliases(tmp_path / "aliases.json")
    aliases.point("default", ONE)
    for name in ("default", "unknown"):
        with pytest.raises(ValueError, match="previous"):
            aliases.roll_back(name)


def test_version_is_found_by_its_whole_hash_alone(tmp_path: Path) -> None:
    (tmp_path / "versions" / ONE).mkdir(parents=True)
    (tmp_path / "other").mkdir()
    versions = FolderVersions(tmp_path / "versions")
    assert versions.find(ONE) == tmp_path / "versions" / ONE
    for name in (TWO, ONE[:12], "", ".", "../other", str(tmp_path), f"{ONE}/", ONE + "\n"):
        assert versions.find(name) is None


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
