from pathlib import Path

import pytest

from tests.install.environment import PACKAGES


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of somebody else's, with packages named as ours, none of which we may import."""
    for name in PACKAGES:
        if name != "sds_clip":
            (tmp_path / name).mkdir()
            (tmp_path / name / "__init__.py").write_text(
                f"raise RuntimeError('{name} of the current folder')\n"
            )
    return tmp_path
