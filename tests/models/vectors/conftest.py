from pathlib import Path

import pytest

from tests.pictures import save_pictures

NAMES = ["a.png", "b/c.jpg", "b/d.png", "b.webp", "e.gif", "f.png", "g.png"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven pictures; picture k is grey of level k."""
    return save_pictures(tmp_path / "photos", NAMES)
