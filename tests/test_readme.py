"""The README's curl calls, run as they stand there, give the README's answers."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.serverside import RunningServer, running_server

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(
    r"```sh\n(curl .*?)\n```\n```json\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL
)

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("readme")
    database = f"sqlite:///{folder}/sds-clip.db"  # `make run` has one, so its default model is an alias
    with running_server(folder, "--model", "demo", SDS_CLIP_DATABASE_URL=database) as server:
        yield server


def assert_like(got: Any, written: Any, *, absolute: float, relative: float) -> None:
    """Equal, where the README rounds numbers and cuts strings and lists short with an ellipsis."""
    if isinstance(written, dict):
        assert got.keys() == written.keys()
        for key, value in written.items():
            assert_like(got[key], value, absolute=absolute, relative=relative)
    elif isinstance(written, list):
        if written and written[-1] == "...":
            written = written[:-1]
            got = got[: len(written)]
        for got_item, written_item in zip(got, written, strict=True):
            assert_like(got_item, written_item, absolute=absolute, relative=relative)
    elif isinstance(written, float):
        assert got == pytest.approx(written, abs=absolute, rel=relative)
    elif isinstance(written, str) and written.endswith("..."):
        assert got.startswith(written.removesuffix("..."))
    else:
        assert got == written


def test_there_is_an_example() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_readmes_answer_is_what_comes_back(server: RunningServer, number: int) -> None:
    command, written = EXAMPLES[number]
    command = command.replace("localhost:8000", server.url.removeprefix("http://"))
    answer = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    # bfloat16 or float32; an embedding's numbers are small.
    absolute, relative = (0.004, 0) if "/embed" in command else (0.02, 0.02)
    assert_like(json.loads(answer.stdout), json.loads(written), absolute=absolute, relative=relative)
