"""A library of versions, and services over it."""

import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.app.serving.swapping import Library, Service, flip_a_byte, make_library, serving
from tests.checkpoints import save_tiny_clip


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory, small_clip: Clip) -> Library:
    folder = tmp_path_factory.mktemp("library")
    return make_library(folder / "versions", small_clip, folder, 3)


@dataclass
class Start:
    """Starts the service over one folder, as a process is started again. It serves the base of a library."""

    library: Library
    folder: Path
    root: Path
    """Where its registry has the versions."""

    @property
    def base(self) -> str:
        return self.library.base.version

    @property
    def published(self) -> list[str]:
        return self.library.published

    @property
    def state(self) -> Path:
        """What the one process that has run here keeps for its next start."""
        (state,) = (self.folder / "data" / "state").iterdir()
        return state

    def copy(self) -> None:
        """Give it a copy of the versions, for a test to damage."""
        self.root = Path(shutil.copytree(self.root, self.folder / "data/versions"))

    def damage(self, version: str) -> None:
        flip_a_byte(self.root / version / "delta.safetensors")

    def __call__(self, *others: Clip, **options: Any) -> AbstractAsyncContextManager[Service]:
        return serving(self.folder, [self.library.base, *others], **{"root": self.root, **options})


def another(folder: Path) -> Clip:
    """Another base, whose weights lie in a folder."""
    return load_clip(str(save_tiny_clip(folder, seed=9)), device="cpu", precision="float32")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[tuple[Any, ...]]]:
    """Notes what each call of something is given, from here on."""

    def noting(name: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        real = resolve_name(name)

        def note(*given: Any, **options: Any) -> Any:
            found.append(given)
            return real(*given, **options)

        monkeypatch.setattr(name, note)
        return found

    return noting


@pytest.fixture
def start(library: Library, tmp_path: Path) -> Start:
    return Start(library, tmp_path, library.root)
