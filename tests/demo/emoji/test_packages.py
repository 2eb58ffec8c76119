import json
from pathlib import Path
from typing import Any

import pytest

from sds_clip.demo.emoji.packages import (
    HELD_OUT,
    NAMES_PACKAGE,
    NAMES_VERSION,
    SEEN,
    VENDORS,
    Concept,
    PackageError,
    concepts,
    drawings,
    install_command,
)

CAT, CLOVER, EGGPLANT = (
    Concept("1F408", "cat", ("pet",)),
    Concept("2618-FE0F", "shamrock", ()),
    Concept("1F346", "eggplant", ()),
)


def write(folder: Path, version: str, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (files | {"package": {"version": version}}).items():
        file = folder / f"{name.replace('__', '/')}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))


def write_vendor(modules: Path, **changes: Any) -> None:
    info = {
        "license": {"spdx": HELD_OUT.licence},
        "author": {"name": HELD_OUT.author, "url": HELD_OUT.source},
    }
    files = {
        "info": info,
        "chars": {"1f408": "cat-sitting"},
        "icons": {
            "width": 32,
            "height": 32,
            "icons": {"cat-sitting": {"body": "<g/>"}, "shamrock": {"body": "<a/>", "width": 20}},
            "aliases": {"aubergine": {"parent": "shamrock"}, "turned": {"parent": "shamrock", "rotate": 1}},
        },
    }
    write(modules / HELD_OUT.package, HELD_OUT.version, **(files | changes))


def test_concepts_are_in_unicodes_order_and_without_skin_tones(tmp_path: Path) -> None:
    records = [
        {"hexcode": "B", "label": "second", "order": 2, "group": 1},
        {"hexcode": "A", "label": "first", "order": 1, "group": 0, "tags": ["one"]},
        {"hexcode": "C", "label": "light skin", "order": 0, "group": 2},
        {"hexcode": "D", "label": "a letter"},
    ]
    write(tmp_path / NAMES_PACKAGE, NAMES_VERSION, en__data=records)
    assert concepts(tmp_path) == [Concept("A", "first", ("one",)), Concept("B", "second", ())]


def test_a_drawing_is_found_by_its_code_its_name_or_its_former_name(tmp_path: Path) -> None:
    write_vendor(tmp_path)
    found = drawings(tmp_path, HELD_OUT, [CAT, CLOVER, EGGPLANT, Concept("1F9FF", "turned", ())])
    assert list(found) == [CAT.code, CLOVER.code, EGGPLANT.code]  # a turned one is another drawing
    assert 'viewBox="0 0 32 32"><g/>' in found[CAT.code]
    assert 'viewBox="0 0 20 32"><a/>' in found[CLOVER.code]
    assert found[EGGPLANT.code] == found[CLOVER.code]  # the character's name is AUBERGINE


def test_another_licence_or_author_is_an_error(tmp_path: Path) -> None:
    write_vendor(tmp_path, info={"license": {"spdx": "CC-BY-SA-4.0"}, "author": {"name": "x", "url": "y"}})
    with pytest.raises(PackageError, match=r"CC-BY-SA-4\.0, x, y, not fluent-emoji-flat by Microsoft"):
        drawings(tmp_path, HELD_OUT, [CAT])


def test_a_missing_package_and_another_version_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="npm install --ignore-scripts"):
        drawings(tmp_path, HELD_OUT, [CAT])
    write_vendor(tmp_path)
    write(tmp_path / HELD_OUT.package, "9.9")
    with pytest.raises(PackageError, match=r"has version 9\.9"):
        drawings(tmp_path, HELD_OUT, [CAT])


def test_no_set_is_under_a_licence_that_binds_what_is_made_of_it() -> None:
    assert {each.licence for each in VENDORS} == {"Apache-2.0", "CC-BY-4.0", "MIT"}
    assert HELD_OUT not in SEEN
    assert all(f"{each.package}@{each.version}" in install_command() for each in VENDORS)
