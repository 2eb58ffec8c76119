"""Aliases in a file."""

from pathlib import Path

import pytest

from sds_clip.app.store.records import Alias
from tests.app.serving.file_aliases import FileAliases

ONE, TWO = "1" * 64, "2" * 64


def test_alias_grows_its_generation_with_every_move_and_remembers_the_version_before(tmp_path: Path) -> None:
    aliases = FileAliases(tmp_path / "new" / "aliases.json")
    assert list(aliases.read()) == []
    assert aliases.point("default", ONE) == Alias("default", ONE, 1)
    assert aliases.point("default", TWO) == Alias("default", TWO, 2, previous=ONE)
    assert aliases.roll_back("default") == Alias("default", ONE, 3, previous=TWO)
    aliases.point("canary", TWO)
    assert {alias.name: alias.generation for alias in aliases.read()} == {"default": 3, "canary": 1}


def test_alias_without_a_version_before_cannot_be_rolled_back(tmp_path: Path) -> None:
    aliases = FileAliases(tmp_path / "aliases.json")
    aliases.point("default", ONE)
    for name in ("default", "unknown"):
        with pytest.raises(ValueError, match="previous"):
            aliases.roll_back(name)
