"""What the tests in containers need, and what they say without it."""

from pathlib import Path

import pytest

from tests.docker import engine
from tests.docker.engine import PACKAGES, NoEngine, install_missing


@pytest.fixture(autouse=True)
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.os, "geteuid", lambda: 0)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of programs: those that docker.io and the others have, and so without `docker`."""
    for program in PACKAGES.keys() - {"docker"}:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("programs")
def test_engine_without_its_program_names_both_packages() -> None:
    with pytest.raises(NoEngine, match=r"^docker cannot be found.* docker\.io and docker-cli"):
        install_missing()


def test_missing_program_is_installed_by_its_package_alone(programs: Path) -> None:
    apt = programs / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >> {programs}/asked\n')
    apt.chmod(0o755)
    install_missing()
    asked = (programs / "asked").read_text().splitlines()
    assert asked == ["update -qq", "install -qq --yes --no-install-recommends docker-cli"]


def test_package_that_cannot_be_installed_is_a_reason_that_names_both(programs: Path) -> None:
    apt = programs / "apt-get"
    apt.write_text("#!/bin/sh\necho no network >&2\nexit 100\n")
    apt.chmod(0o755)
    with pytest.raises(NoEngine, match=r"no network.*docker\.io and docker-cli"):
        install_missing()
