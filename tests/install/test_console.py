"""The wheel contains the console, if it was built before."""

import zipfile
from pathlib import Path

import pytest

from sds_clip.app.routes.console import FOLDER
from tests.install.environment import build_wheel


@pytest.mark.slow
@pytest.mark.skipif(not (FOLDER / "index.html").exists(), reason="the console is not built: make console")
def test_wheel_contains_every_file_of_the_console(tmp_path: Path) -> None:
    files = {
        f"sds_clip/app/console/{file.relative_to(FOLDER)}" for file in FOLDER.rglob("*") if file.is_file()
    }

    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        assert files <= set(wheel.namelist())
