"""`docker compose up` in real containers: its jobs, its faults and its upgrade. Run by `make test-compose`."""

import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sds_clip import Client, Job
from sds_clip.client.errors import AuthenticationError
from sds_clip.client.schemas import WorkerInfo
from tests.app.serverside import free_ports
from tests.checkpoints import save_tiny_clip
from tests.docker.account import TEXTS, Account, step_of
from tests.docker.base_images import CACHE, build
from tests.docker.compose import REPOSITORY
from tests.docker.engine import Engine, NoEngine, running_engine
from tests.docker.system import LASTING, System, tried, until
from tests.training import save_coco
from tests.worker.sets import save_winoground

pytestmark = pytest.mark.compose

FORMER_RELEASE, CURRENT = "1414a10", "current"
IMAGES = {"api": "sds-clip-api", "worker": "sds-clip-worker"}
STEPS = 150
"""So many steps last half a minute, so that a fault comes in the middle."""
NO_CAPABILITIES = "0000000000000000"
OFF_S = 30
SETTINGS = {"SDS_CLIP_PRECISION": "float32", "SDS_CLIP_DEADLINE_S": "90"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    try:
        with running_engine(CACHE) as engine:
            build(engine, REPOSITORY, CURRENT, IMAGES)
            tag(engine, CURRENT)
            yield engine
    except NoEngine as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def system(engine: Engine) -> Iterator[System]:
    system = System(engine, "sds-clip-test", free_ports(2), SETTINGS)
    system.remove()  # what an interrupted run has left
    system.up()
    yield system
    system.remove()


@pytest.fixture(scope="module")
def account(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    folder = tmp_path_factory.mktemp("compose")
    pictures = save_coco(folder / "pairs").parent
    account = Account(system, system.key(), pictures / "0.png", folder, "demo")
    account.pairs = uploaded(account.client, pictures, "pairs")
    yield account
    account.close()
    (CACHE / "table.md").write_text(account.table() + "\n")
    print(f"\n{account.table()}")


def test_containers_have_no_more_rights_than_they_need(system: System) -> None:
    for service in LASTING:
        (container,) = system.containers(service)
        status = system.engine.run("exec", container, "cat", "/proc/1/status")
        values = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        assert values["CapEff"].strip() == NO_CAPABILITIES, service
        assert values["NoNewPrivs"].strip() == "1"
        assert "0" not in values["Uid"].split()
        refused = system.engine.run("exec", container, "touch", "/usr/file", check=False)
        assert "Read-only file system" in refused
        limits = system.engine.inspect(container, "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}")
        assert all(int(limit) > 0 for limit in limits.split()), service


def test_a_service_sees_its_own_secrets_alone(system: System) -> None:
    seen = {
        service: set(
            system.engine.run("exec", *system.containers(service), "find", "/secrets", "-type", "f").split()
        )
        for service in LASTING
    }
    postgres, redis = "/secrets/postgres/password", "/secrets/redis/password"
    both = {postgres, redis, "/secrets/redis/redis.conf"}
    assert seen["postgres"] == {postgres}
    assert seen["redis"] == {redis, "/secrets/redis/redis.conf"}
    assert seen["worker-finetune"] == seen["worker-evaluate"] == both
    assert seen["api"] == both | {"/secrets/keys/keys.json"}


def test_data_is_for_its_owner_alone(system: System) -> None:
    (api,) = system.containers("api")
    assert (
        system.engine.run("exec", api, "stat", "-c", "%a %u", "/data", "/state").split()
        == ["700", "10001"] * 2
    )


def test_a_setting_reaches_the_service_and_what_is_not_set_does_not(system: System) -> None:
    (api,) = system.containers("api")
    told = system.engine.run("exec", api, "env")
    assert "SDS_CLIP_DEADLINE_S=90" in told
    assert "SDS_CLIP_MAX_QUEUE" not in told


def test_without_a_key_nothing_is_answered(account: Account) -> None:
    with Client(account.system.url, api_key="wrong") as client, pytest.raises(AuthenticationError):
        client.models()


def test_a_job_is_trained_and_its_version_served_under_load(account: Account) -> None:
    before = account.client.model("default")["id"]
    with account.action("fine-tune, promote and roll back"):
        job = account.submit(promote="always").wait()
        until(partial(serves, account, str(job.version)), "the new version is served")
        assert account.client.rollback(reason="a test")["version"] == before
        until(partial(serves, account, before), "the earlier version is served again")


def test_an_evaluation_ends_with_its_metrics(account: Account, tmp_path: Path) -> None:
    data = uploaded(account.client, save_winoground(tmp_path / "winoground"), "winoground")
    with account.action("evaluate"):
        result = account.evaluate(data).wait().result
        assert result is not None
        assert result["metrics"].keys() >= {"text_score", "image_score", "group_score"}


def test_a_paused_job_goes_on(account: Account) -> None:
    with account.action("pause and resume"):
        job = under_way(account)
        job.pause()
        until(lambda: job.refresh().status == "paused", "the job is paused")
        job.resume()


@pytest.mark.parametrize("service", LASTING)
def test_a_crashed_container_is_started_again_and_nothing_is_lost(account: Account, service: str) -> None:
    with account.action(f"process of {service} killed"):
        account.hit(under_way(account))
        account.system.crash(*account.system.containers(service))


@pytest.mark.parametrize("service", LASTING)
def test_a_killed_container_comes_back_by_up(account: Account, service: str) -> None:
    with account.action(f"docker kill {service}; docker compose up"):
        account.hit(under_way(account))
        account.system.engine.run("kill", *account.system.containers(service))
        account.system.up()


def test_a_restart_of_everything_loses_nothing(account: Account) -> None:
    with account.action("docker compose restart"):
        account.hit(under_way(account))
        account.system.compose("restart")
        account.system.until_healthy()


@pytest.mark.parametrize("service", ["worker-finetune", "redis", "postgres"])
def test_a_container_off_the_network_comes_back(account: Account, service: str) -> None:
    with account.action(f"network of {service} cut for {OFF_S} s"):
        job = under_way(account)
        with account.system.cut_off(service):
            time.sleep(OFF_S)
        account.hit(job)
        account.system.until_healthy()


def test_two_apis_and_two_workers_share_the_work(account: Account) -> None:
    system = account.system
    port = int(system.url.rpartition(":")[2])
    with account.action("two APIs and two workers"):
        system.up("--scale", "api=2", "--scale", "worker-finetune=2", API_PORT=f"{port}-{port + 1}")
        until(lambda: len(finetune_workers(account)) == 2, "both workers take jobs")
        jobs = [account.submit(steps=STEPS) for _ in range(2)]
        until(lambda: all(worker["job"] for worker in finetune_workers(account)), "each worker has a job")
        version = str(jobs[0].wait().version)
        account.client.promote(version, reason="a test", force=True)
        for number in range(2):
            with Client(f"http://127.0.0.1:{port + number}", api_key=account.key) as client:
                until(lambda client=client: match(account, client) == version, "both serve it")  # type: ignore[misc]
    system.up("--scale", "api=1", "--scale", "worker-finetune=1")


def test_down_ends_everything_in_time_and_up_has_everything_again(account: Account) -> None:
    system = account.system
    containers = [container for service in LASTING for container in system.containers(service)]
    served = account.client.model("default")["id"]
    with account.action("docker compose down; docker compose up"):
        account.hit(under_way(account))
        system.compose("stop")
        codes = {
            container: system.engine.inspect(container, "{{.State.ExitCode}}") for container in containers
        }
        assert set(codes.values()) == {"0"}, codes
        system.compose("down")
        system.up()
        until(partial(serves, account, served), "the same version is served")


def test_a_backup_moves_the_system_to_other_volumes(account: Account, engine: Engine, tmp_path: Path) -> None:
    """By the commands of docs/how-to/back-up.md, while the first system runs."""
    version = str(account.submit(promote="always").wait().version)
    with account.action("backup beside a running job"):
        under_way(account)
        account.system.stream("sds-clip", "backup", "-", stdout=tmp_path / "backup.tar")
    other = System(engine, "sds-clip-restore-test", free_ports(2), SETTINGS)
    other.remove()
    try:
        other.compose("up", "--detach", "--no-build", "--wait", "postgres")
        other.stream("sds-clip", "restore", "-", stdin=tmp_path / "backup.tar")
        other.stream("sds-clip", "check")
        other.up()
        with Client(other.url, api_key=other.key()) as client:
            until(lambda: match(account, client) == version, "the same version is served")
            for job_id in account.accepted:
                assert client.job(job_id).wait().status == "succeeded"
    finally:
        other.remove()


def test_an_upgrade_takes_everything_over(engine: Engine, tmp_path: Path) -> None:
    """From the images and the compose file of an earlier release, over the same volumes."""
    former = tmp_path / "former"
    former.mkdir()
    archive = subprocess.run(["git", "archive", FORMER_RELEASE], cwd=REPOSITORY, capture_output=True)
    if archive.returncode:
        pytest.skip(f"The clone lacks the commit {FORMER_RELEASE}: git fetch --unshallow")
    subprocess.run(["tar", "-x", "-C", former], input=archive.stdout, check=True)
    weights = tmp_path / "weights"
    base = save_tiny_clip(weights / "base")
    # Both releases serve the same weights, since each has another demo model.
    settings = {
        "SDS_CLIP_PRECISION": "float32",
        "SDS_CLIP_MODELS": "local-dir:/weights/base",
        "WEIGHTS_FOLDER": str(weights),
    }
    for path in (weights, base, *base.iterdir()):
        path.chmod(0o755)  # the containers run as another user
    build(engine, former, FORMER_RELEASE, IMAGES)
    system = System(engine, "sds-clip-upgrade-test", free_ports(2), settings)
    try:
        upgrade(system, former, tmp_path, f"local-dir:{base}")
    finally:
        system.remove()


def upgrade(system: System, former: Path, folder: Path, base: str) -> None:
    system.of(former)
    tag(system.engine, FORMER_RELEASE)
    system.up()
    pictures = save_coco(folder / "pairs").parent
    # The former compose file passes no precision on, so its containers compute in bfloat16 where it is fast.
    account = Account(system, system.key(), pictures / "0.png", folder, base, tolerance=0.02)
    account.pairs = uploaded(account.client, pictures, "pairs")
    version = str(account.submit(promote="always").wait().version)
    until(partial(serves, account, version), "the version is served")
    with account.action(f"upgrade from {FORMER_RELEASE}"):
        job = under_way(account)
        account.hit(job)
        system.compose("stop", "worker-finetune", "worker-evaluate")
        assert not job.refresh().has_ended
        system.compose("down")
        tag(system.engine, CURRENT)
        system.of(REPOSITORY)
        system.up()
        until(partial(serves, account, version), "the same version is served")
    print(f"\n{account.table()}")
    account.close()


def tag(engine: Engine, release: str) -> None:
    """Give the names in the compose file to the images of a release."""
    for image in IMAGES.values():
        engine.run("tag", f"{image}:{release}", f"{image}:latest")


def uploaded(client: Client, files: Path, format: str) -> str:
    """The id of a data set that was sent and accepted."""
    # The release that is upgraded needs a name.
    name = str(client.upload_dataset(files, format=format, name=f"{format}-of-the-test")["id"])
    until(lambda: client.dataset(name)["status"] != "validating", "the data set is checked")
    assert client.dataset(name)["status"] == "ready"
    return name


def under_way(account: Account, **fields: Any) -> Job:
    """A new job, which has begun to train."""
    job = account.submit(steps=STEPS, **fields)
    until(lambda: step_of(job.refresh()) > 2, "the job trains")
    return job


def finetune_workers(account: Account) -> list[WorkerInfo]:
    return [
        worker for worker in account.client.workers() if worker["alive"] and worker["queue"] == "finetune"
    ]


def match(account: Account, client: Client) -> str | None:
    answer = tried(lambda: client.match([account.picture], TEXTS))
    return None if answer is None else str(answer["model"]["version"])


def serves(account: Account, version: str) -> bool:
    return match(account, account.client) == version
