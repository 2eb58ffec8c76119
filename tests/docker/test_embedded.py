"""The image of the embedded run, started by the one line that docs/how-to/deploy.md has. Run by `make test-compose`."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from sds_clip import Client
from tests.app.serverside import free_port
from tests.docker.base_images import CACHE, build
from tests.docker.compose import REPOSITORY
from tests.docker.engine import Engine, NoEngine, running_engine
from tests.docker.system import until
from tests.sds_clip.embedded import first_tip
from tests.training import save_coco

pytestmark = pytest.mark.compose

NAME = "sds-clip-embedded-test"
URL = "http://127.0.0.1:8000"
TEXTS = ["a red circle", "a blue square"]


class Container:
    """One container over a volume. The tests' engine has no network of its own, so it gets one."""

    def __init__(self, engine: Engine, port: int) -> None:
        self.engine = engine
        self.url = f"http://127.0.0.1:{port}"
        self._port = port

    def start(self) -> None:
        self.engine.run("network", "create", NAME, check=False)
        began = time.monotonic()
        self.engine.run(
            *("run", "--detach", "--name", NAME, "--network", NAME, "-p", f"{self._port}:8000"),
            *("-v", f"{NAME}:/data", "sds-clip:current"),
        )
        health = "{{.State.Health.Status}}"
        until(lambda: self.engine.inspect(NAME, health) == "healthy", "it is healthy")
        print(f"The embedded run is healthy {time.monotonic() - began:.1f} s after docker run.")

    def key(self) -> str:
        """Read as its log says."""
        (told,) = re.findall(r"^To show the API key .*: (docker exec .*)$", self.log(), re.MULTILINE)
        return self.shell(told).strip()

    def log(self) -> str:
        return self.engine.run("logs", NAME)

    def shell(self, command: str, **environment: str) -> str:
        """Run a command as its log has it, outside."""
        return self.engine.command(["sh", "-c", command.replace(URL, self.url)], **environment)

    def remove(self) -> None:
        self.engine.run("rm", "--force", NAME, check=False)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    try:
        with running_engine(CACHE) as engine:
            build(engine, REPOSITORY, "current", {"embedded": "sds-clip"})
            container = Container(engine, free_port())
            container.remove()  # what an interrupted run has left
            engine.run("volume", "rm", "--force", NAME)
            container.start()
            yield container
            container.remove()
            engine.run("volume", "rm", "--force", NAME)
            engine.run("network", "rm", NAME)
    except NoEngine as error:
        pytest.skip(str(error))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_it_asks_for_the_key_that_it_made_and_shows_the_console_without(container: Container) -> None:
    assert httpx.get(f"{container.url}/models").status_code == httpx.codes.UNAUTHORIZED
    assert "<html" in httpx.get(container.url, follow_redirects=True).text


def test_what_it_says_to_do_next_works_outside(container: Container) -> None:
    answer = container.shell(first_tip(container.log()), SDS_CLIP_API_KEY=container.key())
    assert '"best_text":"a black circle"' in answer
    (jobs,) = re.findall(r"List the jobs: +(.*)", container.log())
    assert container.shell(jobs, SDS_CLIP_API_KEY=container.key()).startswith("job  name ")


def test_it_answers_and_fine_tunes(container: Container, picture: Path, tmp_path: Path) -> None:
    with Client(container.url, api_key=container.key()) as client:
        assert client.match([picture], TEXTS)["results"]
        data = client.upload_dataset(save_coco(tmp_path / "pairs").parent, format="pairs")
        until(lambda: client.dataset(str(data["id"]))["status"] == "ready", "the data set is checked")
        job = client.finetune(
            str(data["id"]), objective="clip", hyperparameters={"steps": 2, "batch_size": 4}
        )
        assert job.wait().status == "succeeded"


def test_another_container_over_the_volume_has_the_key_and_the_jobs(container: Container) -> None:
    key = container.key()
    with Client(container.url, api_key=key) as client:
        before = [job.id for job in client.jobs()]
    container.engine.run("stop", "--time", "90", NAME)
    assert container.engine.inspect(NAME, "{{.State.ExitCode}}") == "0"
    container.remove()
    container.start()
    assert container.key() == key
    with Client(container.url, api_key=key) as client:
        assert [job.id for job in client.jobs()] == before
