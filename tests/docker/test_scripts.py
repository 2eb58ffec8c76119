"""The containers' scripts, run as they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.keys import KeyRing
from tests.docker.dockerfile import REPOSITORY


def run(script: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(REPOSITORY / "docker" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of secrets, and what was printed as they were made."""
    folder = tmp_path_factory.mktemp("volume") / "secrets"
    done = run("init.py", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_init_prints_a_key_that_may_do_everything(made: tuple[Path, str]) -> None:
    folder, printed = made
    key = KeyRing(folder / "keys.json").find(printed.split()[-1])
    assert key is not None
    assert (key.name, sorted(key.scopes)) == ("admin", ["admin", "infer", "train"])


def test_second_init_changes_and_prints_nothing(made: tuple[Path, str]) -> None:
    folder, _ = made
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    done = run("init.py", folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_secrets_are_for_their_owner_and_passwords_for_its_group(made: tuple[Path, str]) -> None:
    folder, _ = made
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()}
    shared = {"postgres_password": 0o640, "redis_password": 0o640, "redis.conf": 0o640}
    assert modes == {**shared, "keys.json": 0o600}


def test_every_folder_gets_passwords_of_its_own(made: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = made
    run("init.py", tmp_path)
    contents = [
        (place / name).read_text()
        for place in (folder, tmp_path)
        for name in ("postgres_password", "redis_password")
    ]
    assert len(set(contents)) == 4
    assert (folder / "redis.conf").read_text().split() == ["requirepass", contents[1]]


def test_entrypoint_fills_the_urls_and_becomes_the_command(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    show = "import os; print(os.environ['SDS_CLIP_DATABASE_URL'], os.environ['SDS_CLIP_BROKER_URL'])"
    done = run(
        "entrypoint.py",
        *(sys.executable, "-c", show),
        SDS_CLIP_DATABASE_URL=f"postgresql://me:{{{tmp_path}/password}}@host/name",
        SDS_CLIP_BROKER_URL="redis://elsewhere:6379/0",
    )
    assert done.stdout.split() == ["postgresql://me:s3cret@host/name", "redis://elsewhere:6379/0"]


def test_entrypoint_passes_the_commands_exit_code_on() -> None:
    assert run("entrypoint.py", sys.executable, "-c", "exit(7)").returncode == 7


def test_entrypoint_without_the_secret_says_who_makes_it() -> None:
    done = run("entrypoint.py", "true", SDS_CLIP_BROKER_URL="redis://:{/nowhere/password}@redis/0")
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "/nowhere/password cannot be read (No such file or directory); the service `init` makes it.",
    )


def test_worker_without_a_database_is_unhealthy_and_says_so(tmp_path: Path) -> None:
    done = run(
        "worker_health.py",
        SDS_CLIP_DATABASE_URL="postgresql://sds_clip@127.0.0.1:1/sds_clip",
        SDS_CLIP_BROKER_URL="redis://127.0.0.1:1/0",
        SDS_CLIP_DATA_DIR=str(tmp_path),
    )
    assert done.returncode == 1
    assert "the database does not answer" in done.stderr


def test_worker_without_a_broker_is_unhealthy_and_says_so(tmp_path: Path) -> None:
    done = run(
        "worker_health.py",
        SDS_CLIP_DATABASE_URL=f"sqlite:///{tmp_path}/jobs.db",
        SDS_CLIP_BROKER_URL="redis://127.0.0.1:1/0",
        SDS_CLIP_DATA_DIR=str(tmp_path),
    )
    assert done.returncode == 1
    assert "the broker does not answer" in done.stderr
