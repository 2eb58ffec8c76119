import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.computed_by import PACKAGES, code_version, computed_by
from sds_clip.models.evaluation.scorers import ClipScorer


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    computed_by.cache_clear()
    yield
    computed_by.cache_clear()
    code_version.cache_clear()


def upgrade(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    version = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "99.0" if name == package else version(name))
    computed_by.cache_clear()


def test_it_is_short_and_the_same_as_long_as_nothing_changes() -> None:
    first = computed_by()
    computed_by.cache_clear()
    assert re.fullmatch("[0-9a-f]{8}", first)
    assert computed_by() == first


@pytest.mark.parametrize("package", PACKAGES)
def test_it_changes_with_the_version_of_every_package(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = computed_by()
    upgrade(monkeypatch, package)
    assert computed_by() != before


def test_it_changes_with_the_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for commit in ("0123456789ab", "ba9876543210"):
        monkeypatch.setenv("SDS_CLIP_COMMIT", commit)
        code_version.cache_clear()
        computed_by.cache_clear()
        found.append(computed_by())
    assert found[0] != found[1]


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before = computed_by()

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    computed_by.cache_clear()
    assert computed_by() != before


def test_features_of_other_packages_are_not_found(
    tiny_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ClipScorer(tiny_clip, tmp_path) as scorer:
        scorer.encode_texts(["a dog"])
    upgrade(monkeypatch, "torch")
    with ClipScorer(tiny_clip, tmp_path) as scorer:
        scorer.encode_texts(["a dog"])
        assert scorer.encoded["texts"] == 1
