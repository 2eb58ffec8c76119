"""The tutorial's commands, run as they stand there, on a system of its own. Its two tabs are two ways through it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sds_clip import Client
from tests.docs.commands import DOCS, blocks
from tests.sds_clip.embedded import Running

SETUP = ["make run\n", ". .venv/bin/activate\n"]
"""What the test does in its own way."""


def code(way: str, language: str) -> str:
    """All blocks of a language that a reader of these tabs runs, in order."""
    found = [each for each in blocks(DOCS / "tutorial.md") if each.tab in (None, way)]
    return "\n".join(each.code for each in found if each.language == language and each.code not in SETUP)


def test_the_tutorial_begins_with_the_setup() -> None:
    shell = [each.code for each in blocks(DOCS / "tutorial.md") if each.language == "sh"]
    assert shell[: len(SETUP)] == SETUP


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc")
@pytest.mark.skipif(not all(map(shutil.which, ("curl", "jq"))), reason="needs curl and jq")
@pytest.mark.parametrize("way", ["Shell", "Python"])
def test_its_commands_lead_to_a_promoted_version_and_back(way: str, tmp_path: Path) -> None:
    running = Running(tmp_path)
    try:
        work = tmp_path / "tutorial"
        for language, program in (("sh", ["bash", "-euo", "pipefail"]), ("python", [sys.executable])):
            script = code(way, language).replace("/tmp/tutorial", str(work))
            file = tmp_path / f"script.{language}"
            file.write_text(script.replace("localhost:8000", running.url.removeprefix("http://")))
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            environment = {**os.environ, "PATH": path, "SDS_CLIP_URL": running.url}
            subprocess.run([*program, str(file)], cwd=DOCS.parent, env=environment, check=True)
        with Client(running.url) as client:
            (alias,) = client.models()["aliases"]
            assert alias["generation"] == 3  # promoted, and rolled back
            (made,) = [version for version in client.models()["versions"] if version["job_id"]]
            assert client.model(made["id"])["base_version"] == alias["version"]
        assert "GroupMatch" in (work / "report.html").read_text(encoding="utf-8")
    finally:
        running.close()
