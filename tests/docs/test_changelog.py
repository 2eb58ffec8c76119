"""The changelog keeps the form that it says it has."""

import re
import tomllib

from tests.docs.commands import ROOT

TEXT = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def test_releases_go_from_the_newest_to_the_first_and_their_kinds_in_order() -> None:
    releases = re.split(r"(?m)^## ", TEXT)[1:]
    titles = [release.splitlines()[0] for release in releases]
    assert re.fullmatch(r"Unreleased \(\d+\.\d+\.\d+\)|\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", titles[0])
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", title) for title in titles[1:])
    versions = [[int(part) for part in re.findall(r"\d+", title)[:3]] for title in titles]
    assert versions == sorted(versions, reverse=True)
    for release in releases:
        kinds = re.findall(r"(?m)^### (.*)$", release)
        assert kinds == sorted(set(kinds), key=KINDS.index)


def test_the_package_has_the_version_of_the_newest_release() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"^## \D*([\d.]+)", TEXT, re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"]
