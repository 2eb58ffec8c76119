"""Environments of their own, into which this tree is installed as its users install it."""

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKED = ("app", "demo", "models", "worker")
"""The packages at the top that are installed below `sds_clip`, by its links to them."""


def build_wheel(folder: Path) -> Path:
    """Build from a copy, since building leaves files beside the sources."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*LINKED, "sds_clip"):
        without = shutil.ignore_patterns("__pycache__", "data" if name == "demo" else "")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=without)
    _pip("wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    (wheel,) = folder.glob("*.whl")
    return wheel


class Environment:
    """A virtual environment of a Python, with no pip in it."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self._folder = folder
        if python == sys.executable:
            venv.create(folder, symlinks=True)
        else:
            subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)

    @property
    def bin(self) -> Path:
        return self._folder / "bin"

    @property
    def size(self) -> int:
        """Bytes of what is installed, compiled modules included."""
        (packages,) = self._folder.glob("lib/python*/site-packages")
        return sum(file.stat().st_size for file in packages.rglob("*") if file.is_file())

    def install(self, wheel: Path, *options: str) -> None:
        _pip("--python", str(self.bin / "python"), "install", *options, str(wheel))

    def link(self, packages: Iterable[str]) -> None:
        """Add packages of the environment that runs the tests, file by file, so that nothing else comes with them."""
        (site,) = self._folder.glob("lib/python*/site-packages")
        for file in (file for name in packages for file in files(name) or []):
            link = site / file
            if ".." not in file.parts and not link.exists():  # a program's script is elsewhere
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(str(file.locate()))

    def run(self, *command: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
        """Run a program of it, with nothing from the outside on its path."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(
            [self.bin / command[0], *command[1:]],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )


def _pip(*arguments: str) -> None:
    """Run pip; where no index can be reached, the test is skipped, except in CI."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments], capture_output=True, text=True
    )
    if done.returncode and "CI" not in os.environ and "No matching distribution found" in done.stderr:
        pytest.skip("pip reaches no package index")
    assert done.returncode == 0, done.stderr
