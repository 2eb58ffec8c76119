from pathlib import Path

import pytest

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip


@pytest.fixture
def tiny_clip(tiny_folder: Path) -> Clip:
    """A model of its own for each test, which may hook into it."""
    return load_clip(f"local-dir:{tiny_folder}", device="cpu", precision="float32")
