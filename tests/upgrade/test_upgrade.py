"""Today's program over what earlier releases have left behind (`tests/upgrade/make.py`): it takes everything over.

The data folder is unpacked elsewhere than it was made; the database names everything below it by relative paths.
"""

import gzip
import json
import signal
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor, cat

from sds_clip import Client, Job
from sds_clip.cli import main
from tests.postgres import PostgreSQL
from tests.sds_clip.embedded import PATIENCE_S, Running, until
from tests.upgrade.make import FLOAT32, IMAGE, LONG, TEXTS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes in /proc"),
]

HERE = Path(__file__).parent
PACKAGE = Path(__file__).parents[2] / "sds_clip"
FIXTURES = [
    pytest.param(
        path.parent.relative_to(HERE).as_posix(),
        marks=pytest.mark.long if path.parent.name == "postgresql" else (),
    )
    for path in sorted(HERE.glob("*/*/expected.json"))
]
KEPT_FOREVER = {"SDS_CLIP_KEEP_FILES_S": "1e12", "SDS_CLIP_KEEP_EVENTS_S": "1e12"}
"""The fixtures are older than what is kept by default of ended jobs."""

JOB_FIELDS = (
    "kind", "status", "created_at", "finished_at", "progress", "result_version", "error", "suffix", "metadata"
)  # fmt: skip
VERSION_FIELDS = ("status", "created_at", "base_version", "job_id", "metrics", "lineage", "aliases")
ALIAS_FIELDS = ("version", "generation", "previous", "updated_at")

SCORE_TOLERANCE = 1e-4
"""Of a cosine in float32 on another CPU; the versions' own differ by more than 5e-3."""
WEIGHT_TOLERANCE = 1e-3
"""Of how far a training has come, as a share of it. The sds-clip job of 1414a10, computed with SSE instead of AVX
instructions, ends 1e-6 from where it did; with another order of the data and other noise, 0.16."""


@dataclass
class Upgraded:
    """A system of today's over a fixture."""

    client: Client
    url: str
    kind: str
    base: Path
    """The weights of the release's demo model."""
    expected: dict[str, Any]

    def job(self, name: str) -> Job:
        """A job of the fixture, as it is now."""
        return self.client.job(self.expected["jobs"][name]["id"])


@pytest.fixture(scope="module", params=FIXTURES)
def upgraded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    fixture, folder = HERE / request.param, tmp_path_factory.mktemp("upgraded")
    # The jobs of a release go on with its own demo model and teacher.
    weights = fixture.parent / "demo"
    package = folder / "path" / "sds_clip"
    package.mkdir(parents=True)
    for file in PACKAGE.iterdir():
        if file.name != "demo":
            (package / file.name).symlink_to(file)
    (package / "demo").mkdir()
    for part in ("student", "teacher"):
        (package / "demo" / part).symlink_to(weights / part)
    settings = {**FLOAT32, **KEPT_FOREVER, "PYTHONPATH": str(package.parent)}
    with tarfile.open(fixture / "data.tar.gz") as tar:
        tar.extractall(folder / "data", filter="data")
    if (dump := fixture / "database.sql.gz").exists():
        server: PostgreSQL = request.getfixturevalue("postgresql")
        name = server.create()
        server.restore(name, gzip.decompress(dump.read_bytes()).decode())
        settings["SDS_CLIP_DATABASE_URL"] = server.url(name)
    running = Running(folder, **settings)
    try:
        with Client(running.url) as client:
            yield Upgraded(
                client,
                running.url,
                fixture.name,
                weights / "student" / "open_clip_model.safetensors",
                json.loads((fixture / "expected.json").read_text()),
            )
        running.process.send_signal(signal.SIGINT)
        running.process.wait(
            PATIENCE_S
        )  # a connection to the database would be in the way of tests after this one
    finally:
        running.close()


def test_every_record_is_still_there(upgraded: Upgraded, capsys: pytest.CaptureFixture[str]) -> None:
    client, expected = upgraded.client, upgraded.expected
    assert {each["id"]: each["status"] for each in client.datasets()} == expected["datasets"]
    assert {job.id for job in client.jobs()} == {job["id"] for job in expected["jobs"].values()}
    for name, before in expected["jobs"].items():
        if name != "queued":  # it runs by now
            assert pick(upgraded.job(name).info, JOB_FIELDS) == pick(before, JOB_FIELDS), name
    for version, before in expected["versions"].items():
        assert pick(client.model(version), VERSION_FIELDS) == pick(before, VERSION_FIELDS)
    aliases = {alias["name"]: pick(alias, ALIAS_FIELDS) for alias in client.models()["aliases"]}
    assert aliases == {name: pick(alias, ALIAS_FIELDS) for name, alias in expected["aliases"].items()}
    assert main(["jobs", "list", "--url", upgraded.url]) == 0
    assert expected["jobs"]["paused"]["id"] in capsys.readouterr().out


def test_curves_events_and_reports_are_still_there(upgraded: Upgraded) -> None:
    trained = upgraded.job("uninterrupted")
    last = upgraded.expected["jobs"]["uninterrupted"]["metrics"]
    assert trained.metrics()[-1]["values"] == last["values"]
    changes = [event["data"]["to"] for event in trained.events() if event["type"] == "status"]
    assert changes == ["queued", "running", "succeeded"]
    assert "winoground" in upgraded.job("measured").report().lower()


def test_versions_and_aliases_give_the_same_scores(upgraded: Upgraded) -> None:
    scores = upgraded.expected["scores"]
    for version in scores:
        assert_serves(upgraded, version, version, scores[version])
    for name, alias in upgraded.expected["aliases"].items():
        assert_serves(upgraded, name, alias["version"], scores[alias["version"]], generation=2)


def test_the_queued_job_runs_to_its_end(upgraded: Upgraded) -> None:
    job = upgraded.job("queued").wait()
    assert job.version not in upgraded.expected["versions"]
    assert_serves(upgraded, str(job.version), str(job.version))


@pytest.mark.long
def test_the_paused_job_ends_with_the_weights_of_an_uninterrupted_one(
    upgraded: Upgraded, tmp_path: Path
) -> None:
    recorded = upgraded.expected["jobs"]["uninterrupted"]
    job = upgraded.job("paused")
    paused_at = job.info["progress"]["step"]
    job.resume().wait()
    # Starting again from the first step, it would come to the same weights.
    assert {"step": paused_at} in [event["data"] for event in job.events()]
    assert distance(upgraded, job.version, recorded["result_version"], tmp_path) < WEIGHT_TOLERANCE
    # On the kind of machine that made the fixture every bit is the same. (A version's id is its weights' hash.)
    again = upgraded.client.finetune(recorded["training_data"], **LONG[upgraded.kind]).wait()
    assert again.version != recorded["result_version"] or job.version == again.version


def test_an_alias_goes_back_and_forth(upgraded: Upgraded) -> None:
    client, alias = upgraded.client, upgraded.expected["aliases"]["candidate"]
    back = partial(client.rollback, "candidate", reason="a test")
    forth = partial(client.promote, alias["version"], alias="candidate", reason="a test")
    for move, generation, version in ((back, 3, alias["previous"]), (forth, 4, alias["version"])):
        assert move()["generation"] == generation
        until(lambda: client.match([IMAGE], TEXTS, model="candidate")["model"]["generation"] == generation)  # noqa: B023
        assert_serves(upgraded, "candidate", version, generation=generation)
    promotions = client.model("candidate")["promotions"]
    assert [each["generation"] for each in promotions if each["alias"] == "candidate"] == [4, 2]


def pick(record: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    """Some fields of what the API said; a later release may have more."""
    return {field: record[field] for field in fields}


def assert_serves(
    upgraded: Upgraded,
    model: str,
    version: str,
    scores: list[float] | None = None,
    generation: int | None = None,
) -> None:
    """A name answers with a version, and as it did when the fixture was made."""
    answer = upgraded.client.match([IMAGE], TEXTS, model=model)
    assert answer["model"]["version"] == version
    if generation is not None:
        assert answer["model"]["generation"] == generation
    if scores is not None:
        assert answer["results"][0]["scores"] == pytest.approx(scores, abs=SCORE_TOLERANCE)


def distance(upgraded: Upgraded, version: str | None, reference: str, folder: Path) -> float:
    """How far apart two versions over the demo model are, as a share of how far the second is from that."""
    base = load_file(upgraded.base)

    def change(version: str) -> Tensor:
        with tarfile.open(upgraded.client.download(version, folder / version)) as tar:
            tar.extractall(folder, filter="data")
        tuned = base | load_file(next(folder.glob(f"*{version[:12]}*/delta.safetensors")))
        return cat([(tuned[name] - base[name]).flatten() for name in sorted(base)])

    expected = change(reference)
    return float((change(str(version)) - expected).norm() / expected.norm())
