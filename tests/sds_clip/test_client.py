"""The client against a real service."""

import asyncio
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sds_clip import AsyncClient, Client, ClientError, Job, JobFailed, WaitTimeout
from sds_clip.client import errors
from tests.app.serverside import RunningServer
from tests.sds_clip.scripted import Answer, scripted
from tests.training import save_coco

TEXTS = ["a red circle", "a blue square"]


@pytest.fixture
def client(service: RunningServer) -> Iterator[Client]:
    with Client(service.url) as opened:
        yield opened


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("client") / "pairs"
    save_coco(folder)
    return folder


def test_a_path_its_bytes_and_a_pil_image_have_the_same_scores(client: Client, photos: list[Path]) -> None:
    first = photos[0]
    answer = client.match([first, str(first), first.read_bytes(), Image.open(first)], TEXTS, model="demo")
    scores = [result["scores"] for result in answer["results"]]
    assert len(scores) == 4
    assert all(score == scores[0] for score in scores)


def test_an_image_of_a_mode_that_png_lacks_is_sent_as_rgb(client: Client, photos: list[Path]) -> None:
    picture = Image.open(photos[0]).convert("RGB")
    separate = picture.convert("CMYK")
    answer = client.match([separate, separate.convert("RGB")], TEXTS)
    assert answer["results"][0]["scores"] == answer["results"][1]["scores"]


def test_classify_and_embed_answer(client: Client, photos: list[Path]) -> None:
    classified = client.classify(photos[:2], ["circle", "square", "star"], top_k=2)
    assert [len(result["predictions"]) for result in classified["results"]] == [2, 2]
    embedded = client.embed(texts=TEXTS)
    assert [len(result["embedding"]) for result in embedded["results"]] == [embedded["dimensions"]] * 2
    assert client.embed(photos[:1])["dimensions"] == embedded["dimensions"]


def test_several_models_answer_a_list_of_any_length(client: Client, photos: list[Path]) -> None:
    images = [photos[number % 2] for number in range(65)]  # more than one request takes
    alone = client.match(images, TEXTS, model="demo")
    first, unknown, last = client.match(images, TEXTS, models=["demo", "nobody", "default"])["answers"]
    assert first == nearly(alone)
    assert (unknown["name"], unknown["error"]["code"]) == ("nobody", "unknown_model")
    assert last["results"] == nearly(alone["results"])

    classified = client.classify(images, TEXTS, models=["default", "demo"])["answers"]
    assert [len(answer["results"]) for answer in classified] == [65, 65]
    assert classified[1] == nearly(client.classify(images, TEXTS, model="demo"))


def nearly(answer: Any) -> Any:
    """Equals an answer whose floats differ in their last bits, as those of batches of different sizes may."""
    match answer:
        case dict():
            return {name: nearly(value) for name, value in answer.items()}
        case list():
            return [nearly(value) for value in answer]
        case float():
            return pytest.approx(answer, rel=1e-5)
    return answer


def test_an_error_says_where_and_which(client: Client) -> None:
    with pytest.raises(errors.InvalidRequest) as raised:
        client.match([b"no image"], TEXTS)
    error = raised.value
    assert (error.status, error.param, error.index) == (422, "images", 0)
    assert str(error) == f"images[0]: {error.message}"
    assert error.request_id
    with pytest.raises(errors.NotFound) as missing:
        client.job("job_none")
    assert (missing.value.status, missing.value.code) == (404, "job_not_found")


def test_a_service_that_is_not_there_is_said_with_what_to_do() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ClientError, match="sds-clip up"):
        client.models()


def test_a_folder_becomes_a_data_set_and_is_deleted(client: Client, pairs: Path) -> None:
    dataset = client.upload_dataset(pairs, format="pairs", name="first")
    assert (dataset["name"], dataset["status"], dataset["source"]["kind"]) == (
        "first",
        "validating",
        "archive",
    )
    assert client.dataset(dataset["id"]) == client.dataset("first") == dataset
    assert dataset in client.datasets(status="validating")
    client.delete_dataset(dataset["id"])
    assert client.dataset(dataset["id"])["status"] == "deleted"


def test_an_archive_is_sent_as_it_is(client: Client, pairs: Path, tmp_path: Path) -> None:
    archive = tmp_path / "pairs.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(pairs, ".")
    dataset = client.upload_dataset(archive, format="pairs")
    assert dataset["name"] == ""
    assert dataset["source"]["size_bytes"] == archive.stat().st_size


def test_what_is_wrong_with_an_upload_is_raised(client: Client, pairs: Path) -> None:
    with pytest.raises(errors.InvalidRequest) as raised:
        client.upload_dataset(pairs, format="pears")
    assert raised.value.param == "format"


@pytest.fixture
def job(client: Client, pairs: Path) -> Job:
    """One that waits for its data set's check, as there is no worker."""
    dataset = client.upload_dataset(pairs, format="pairs")
    return client.finetune(dataset["id"], objective="clip", hyperparameters={"steps": 4}, suffix="mine")


def test_a_job_is_submitted_found_and_listed(client: Client, job: Job) -> None:
    assert (job.kind, job.status, job.info["suffix"]) == ("finetune", "validating", "mine")
    assert client.job(job.id).info["hyperparameters"]["steps"] == 4
    listed = client.jobs(kind="finetune", limit=1)
    assert [each.id for each in listed] == [job.id]
    assert job.metrics() == []


def test_a_name_stands_for_the_id_of_a_job(client: Client, job: Job) -> None:
    data = job.info["training_data"]
    named = client.finetune(data, objective="clip", name="named", hyperparameters={"steps": 4})
    assert client.job("named").cancel().id == named.id


def write_log(service: RunningServer, job: Job, steps: int) -> list[dict[str, Any]]:
    """The log of a run as a worker leaves it."""
    records = [{"step": step, "loss": 1 / step} for step in range(1, steps + 1)]
    run = service.log.parent / "data" / "jobs" / job.id / "1" / "run"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return records


def test_a_log_is_read_record_by_record_by_both_faces(
    service: RunningServer, client: Client, job: Job
) -> None:
    async def read() -> list[dict[str, Any]]:
        async with AsyncClient(service.url) as awaited:
            return [record async for record in (await awaited.job(job.id)).log()]

    with pytest.raises(errors.NotFound):
        next(job.log())
    records = write_log(service, job, 3000)
    assert list(job.log()) == records
    assert asyncio.run(read()) == records


def test_a_version_that_nobody_trained_has_no_log(service: RunningServer, client: Client) -> None:
    async def read() -> None:
        async with AsyncClient(service.url) as awaited:
            await anext(awaited.model_log("default"))

    with pytest.raises(errors.NotFound) as raised:
        next(client.model_log("default"))
    assert raised.value.code == "no_log"
    with pytest.raises(errors.NotFound):
        asyncio.run(read())


def test_waiting_for_a_cancelled_job_raises_and_its_events_end(client: Client, job: Job) -> None:
    job.cancel()
    with pytest.raises(JobFailed) as raised:
        job.wait(progress=True)
    assert (raised.value.code, raised.value.job["id"]) == ("cancelled", job.id)
    events = list(client.job(job.id).events())
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["data"]["to"] == "cancelled"
    assert list(job.events(after=len(events))) == []


def test_waiting_ends_when_the_time_is_up_and_the_job_goes_on(
    service: RunningServer, client: Client, job: Job
) -> None:
    async def wait() -> None:
        async with AsyncClient(service.url) as awaited:
            await (await awaited.job(job.id)).wait(timeout=0.2)

    said = f"Job {job.id} is still validating after 0.2 s, at step 0"
    with pytest.raises(WaitTimeout, match=said) as raised:
        job.wait(timeout=0.2)
    assert (raised.value.code, raised.value.job["id"]) == ("wait_timeout", job.id)
    with pytest.raises(WaitTimeout, match=said):
        asyncio.run(wait())
    assert job.refresh().status == "validating"


def test_a_cancelled_job_is_retried_and_deleted_once_it_has_ended(client: Client, job: Job) -> None:
    assert job.cancel().retry().status == "validating"
    assert job.retry().status == "validating"
    with pytest.raises(errors.Conflict) as raised:
        job.delete()
    assert raised.value.code == "job_state"
    assert job.cancel().delete().info["files_removed_at"] is not None
    assert client.job(job.id).status == "cancelled"


def test_who_runs_jobs_is_listed_and_a_job_says_that_nobody_does(client: Client, job: Job) -> None:
    assert job.info["no_worker"]
    assert client.workers() == []


def test_an_evaluation_is_dried_and_submitted(client: Client, pairs: Path) -> None:
    data = client.upload_dataset(pairs, format="winoground")["id"]
    found = client.dry_run("evaluate", model="demo", benchmark="winoground", data=data)
    assert (found["kind"], found["config"]["benchmark"]) == ("evaluate", "winoground")
    job = client.evaluate("winoground", data, model="demo")
    assert job.cancel().has_ended
    with pytest.raises(errors.NotFound):
        job.report()


def test_the_version_in_service_is_described_and_cannot_be_rolled_back(client: Client) -> None:
    (served,) = [alias for alias in client.models()["aliases"] if alias["name"] == "default"]
    assert client.model("default")["id"] == served["version"]
    again = client.promote(served["version"], reason="it is there")
    assert again["generation"] == served["generation"]
    with pytest.raises(errors.Conflict):
        client.rollback(reason="there is none before")


def test_a_failed_download_leaves_nothing(client: Client, tmp_path: Path) -> None:
    with pytest.raises(errors.NotFound):
        client.download("default", tmp_path / "out.tar")
    assert list(tmp_path.glob("*.tar*")) == []
    assert list(tmp_path.glob(".out*")) == []


def test_a_download_creates_its_folder(tmp_path: Path) -> None:
    with scripted(Answer(200, b"bytes")) as server, Client(server.url) as client:
        file = client.download("default", tmp_path / "a" / "b" / "out.tar")
    assert file.read_bytes() == b"bytes"
    assert [left.name for left in file.parent.iterdir()] == ["out.tar"]


def test_the_awaited_client_does_the_same(service: RunningServer, pairs: Path, photos: list[Path]) -> None:
    async def use() -> dict[str, Any]:
        async with AsyncClient(service.url) as client:
            matched, classified = await asyncio.gather(
                client.match(photos, TEXTS, model="demo"), client.classify(photos, TEXTS)
            )
            dataset = await client.upload_dataset(pairs, format="pairs")
            job = await client.finetune(dataset["id"], objective="clip", hyperparameters={"steps": 4})
            await job.cancel()
            assert (await job.retry()).status == "validating"
            await job.cancel()
            with pytest.raises(JobFailed):
                await job.wait()
            assert (await job.delete()).info["files_removed_at"] is not None
            assert await client.workers() == []
            events = [event["id"] async for event in job.events()]
            listed = await client.jobs(limit=1)
            assert [each.id for each in listed] == [job.id]
            assert len(classified["results"]) == len(photos)
            assert events == list(range(1, len(events) + 1))
            return matched

    matched = asyncio.run(use())
    with Client(service.url) as client:
        assert client.match(photos, TEXTS, model="demo") == matched


def test_the_package_imports_nothing_until_a_name_is_used() -> None:
    import subprocess
    import sys

    code = (
        "import sys, sds_clip; before = 'httpx' in sys.modules; sds_clip.Client;"
        "print(before, 'httpx' in sys.modules, 'torch' in sys.modules, 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "False"]
