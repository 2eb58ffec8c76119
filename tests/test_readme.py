"""The README's curl calls, run as they stand there, give the README's answers, and its job would be accepted."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sds_clip.models.checkpoints.load import load_served
from tests.app.jobs.conftest import Service, running
from tests.app.serverside import RunningServer, running_server

ROOT = Path(__file__).parents[1]
EXAMPLES = re.findall(
    r"```sh\n(curl .*?)\n```\n```json\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL
)


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


class DryRuns:
    """A client whose data sets are there and checked, and which lets a service only judge a job."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.answer: Any = None

    def upload_dataset(self, folder: str, *, format: str) -> dict[str, str]:
        return {"id": self._service.ready_dataset(format)}

    def finetune(self, training_data: str, **fields: Any) -> None:
        body = {"training_data": training_data, **fields, "dry_run": True}
        self.answer = self._service.client.post("/finetune", json=body).json()


def test_the_job_that_the_readme_submits_would_be_accepted(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("\n## Fine-tune\n")[2]
    code = section.partition("```python\n")[2].partition("job.wait")[0]
    clip = load_served("demo", device="cpu", precision="float32")
    settings: dict[str, Any] = {"data_dir": tmp_path, "database_url": f"sqlite:///{tmp_path}/db"}
    with running(clip, **settings, allowed_teachers=re.findall(r'teacher="(.*?)"', code)) as service:
        client = DryRuns(service)
        exec(code, {"client": client})
    assert client.answer.get("object") == "dry_run", client.answer
    measured = [each["benchmark"] for each in client.answer["config"]["evaluate"]]
    assert measured == ["winoground", "retrieval"]
    assert client.answer["estimate"]["steps"] == 2000


def test_there_is_an_example() -> None:
    assert EXAMPLES


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_readmes_answer_is_what_comes_back(server: RunningServer, number: int) -> None:
    command, written = EXAMPLES[number]
    command = command.replace("localhost:8000", server.url.removeprefix("http://"))
    answer = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    # bfloat16 or float32; an embedding's numbers are small.
    absolute, relative = (0.004, 0) if "/embed" in command else (0.02, 0.02)
    assert_like(json.loads(answer.stdout), json.loads(written), absolute=absolute, relative=relative)
