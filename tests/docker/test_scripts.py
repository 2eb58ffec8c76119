"""The containers' scripts, run as they are."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from sds_clip.app.keys import PREFIX, KeyRing, delete_key
from tests.docker.compose import REPOSITORY


def run(script: str, *arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(REPOSITORY / "docker" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


INIT = "import runpy, sys; from pathlib import Path; runpy.run_path(sys.argv[1])['main'](*map(Path, sys.argv[2:]))"


def init(folder: Path) -> str:
    """Run it over the volumes in a folder. Returns what it printed."""
    places = [folder / name for name in ("secrets", "former", "data")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", INIT, str(REPOSITORY / "docker" / "init.py"), *map(str, places)],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The volumes, and what was printed as the secrets were made."""
    folder = tmp_path_factory.mktemp("volumes")
    return folder, init(folder)


def test_init_prints_where_a_key_is_that_may_do_everything_and_not_the_key(made: tuple[Path, str]) -> None:
    folder, printed = made
    file = folder / "secrets/admin/key"
    assert printed.split()[-1] == str(file)
    secret = file.read_text().strip()
    assert secret.startswith(PREFIX)
    assert PREFIX not in printed
    key = KeyRing(folder / "secrets/keys/keys.json").find(secret)
    assert key is not None
    assert (key.name, sorted(key.scopes)) == ("admin", ["admin", "infer", "train"])


def test_second_init_changes_and_prints_nothing(made: tuple[Path, str]) -> None:
    folder, _ = made
    before = contents(folder)
    assert init(folder) == ""
    assert contents(folder) == before


def test_secrets_are_for_their_owner_and_passwords_for_its_group(made: tuple[Path, str]) -> None:
    folder, _ = made
    secrets = folder / "secrets"
    modes = {name: (secrets / name).stat().st_mode & 0o777 for name in contents(secrets)}
    shared = {"postgres/password": 0o640, "redis/password": 0o640, "redis/redis.conf": 0o640}
    assert modes == {**shared, "keys/keys.json": 0o600, "admin/key": 0o600}
    assert (folder / "data").stat().st_mode & 0o777 == 0o700


def test_init_that_was_killed_before_the_key_was_in_force_makes_another(tmp_path: Path) -> None:
    init(tmp_path)
    keys = tmp_path / "secrets/keys"
    lost = (tmp_path / "secrets/admin/key").read_text()
    (keys / "keys.json").rename(keys / "unfinished.json")
    init(tmp_path)
    secret = (tmp_path / "secrets/admin/key").read_text()
    assert secret != lost
    assert KeyRing(keys / "keys.json").find(secret.strip()) is not None
    assert [file.name for file in keys.iterdir()] == ["keys.json"]


def test_every_system_gets_passwords_of_its_own(made: tuple[Path, str], tmp_path: Path) -> None:
    init(tmp_path)
    passwords = [
        (folder / "secrets" / name / "password").read_text()
        for folder in (made[0], tmp_path)
        for name in ("postgres", "redis")
    ]
    assert len(set(passwords)) == 4
    assert (made[0] / "secrets/redis/redis.conf").read_text().split() == ["requirepass", passwords[1]]


def test_init_takes_over_the_secrets_of_older_releases(tmp_path: Path) -> None:
    former = tmp_path / "former"
    former.mkdir()
    for name in ("postgres_password", "redis_password", "redis.conf", "keys.json"):
        (former / name).write_text(f"the former {name}")
    (former / "keys.json").chmod(0o600)
    assert init(tmp_path) == ""
    assert {name: text.decode() for name, text in contents(tmp_path / "secrets").items()} == {
        "postgres/password": "the former postgres_password",
        "redis/password": "the former redis_password",
        "redis/redis.conf": "the former redis.conf",
        "keys/keys.json": "the former keys.json",
    }
    assert (tmp_path / "secrets/keys/keys.json").stat().st_mode & 0o777 == 0o600


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


def test_embedded_run_says_how_to_read_its_key_while_the_key_is_valid(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"

    def said() -> str:
        done = run("embedded.py", "true", SDS_CLIP_KEYS_FILE=str(keys))
        assert (done.returncode, done.stderr) == (0, "")
        assert PREFIX not in done.stdout
        return done.stdout

    assert said() == said()
    assert said().count(f"cat {tmp_path}/admin-key") == 2
    delete_key(keys, "admin")
    assert "admin-key" not in said()
    keys.write_text("{")
    assert "admin-key" not in said()


def test_embedded_run_whose_container_s_name_is_unknown_says_where_to_find_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "docker")
    container_of = runpy.run_path(str(REPOSITORY / "docker" / "embedded.py"))["container_of"]
    assert [container_of(host) for host in ("4f5e9c0a1b2c", "my-laptop")] == ["4f5e9c0a1b2c", "CONTAINER"]


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
