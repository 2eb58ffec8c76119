"""`pip install sds-clip` with no extra: a small client, whose commands name the extra that they lack."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.app.serverside import RunningServer
from tests.install.environment import Environment

pytestmark = pytest.mark.slow

MOST_BYTES = 140_000_000
HEAVY = (
    "torch",
    "open_clip",
    "numpy",
    "PIL",
    "pydantic",
    "fastapi",
    "celery",
    "sqlalchemy",
    "tqdm",
    "sds_clip.app",
    "sds_clip.models",
)
CALL = """
import sys
from sds_clip import Client
with Client(sys.argv[1]) as client:
    print(client.match([sys.argv[2]], ["a red circle", "a blue square"]).keys())
"""


@pytest.fixture(scope="module")
def client(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    environment = Environment(tmp_path_factory.mktemp("client"))
    environment.install(wheel)
    return environment


def test_it_is_small(client: Environment) -> None:
    assert client.size < MOST_BYTES


def test_importing_it_imports_nothing_heavy(client: Environment, foreign: Path) -> None:
    look = f"import sds_clip, sys; sds_clip.Client; print([name for name in {HEAVY} if name in sys.modules])"
    done = client.run("python", "-c", look, cwd=foreign)
    assert done.stdout == "[]\n", done.stderr


def test_type_checkers_are_told_that_it_has_types(client: Environment, foreign: Path) -> None:
    look = "from importlib.resources import files; print(files('sds_clip').joinpath('py.typed').is_file())"
    assert client.run("python", "-c", look, cwd=foreign).stdout == "True\n"


def test_importing_the_package_imports_nothing_else(client: Environment, foreign: Path) -> None:
    look = (
        "import sds_clip, sys; print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    found = client.run("python", "-c", look, cwd=foreign).stdout
    assert set(found.split()) == {"__main__", "sds_clip"}


def test_it_calls_a_service(client: Environment, foreign: Path, server: RunningServer, picture: Path) -> None:
    done = client.run("python", "-c", CALL, server.url, str(picture), cwd=foreign)
    assert "results" in done.stdout, done.stderr
    done = client.run("sds-clip", "models", "list", "--url", server.url, cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout


def test_it_embeds_a_folder_through_a_service_and_searches_it(
    client: Environment, foreign: Path, server: RunningServer, picture: Path
) -> None:
    photos = foreign / "photos"
    photos.mkdir()
    picture.rename(photos / "red.png")
    at = ("--url", server.url)
    done = client.run("sds-clip", "embed", str(photos), "--out", "v.npy", *at, cwd=foreign)
    assert done.returncode == 0, done.stderr
    done = client.run("sds-clip", "search", "v.npy", "a red circle", "--html", "a.html", *at, cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert "red.png" in done.stdout
    assert "data:image/webp" in (foreign / "a.html").read_text()


def test_it_submits_a_job_from_a_yaml_file(
    client: Environment, foreign: Path, server: RunningServer, picture: Path
) -> None:
    (foreign / "pairs").mkdir()
    picture.rename(foreign / "pairs" / "red.png")
    (foreign / "pairs" / "red.txt").write_text("a red circle")
    (foreign / "run.yaml").write_text("base: demo\ndata: pairs\nobjective: clip\nsteps: 1\nlr: 1e-5\n")
    for command in ("datasets upload pairs --format pairs --name pairs", "jobs submit --config run.yaml"):
        done = client.run("sds-clip", *command.split(), "--url", server.url, cwd=foreign)
        assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The job ")


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("up", "jobs"),
        ("serve", "serve"),
        ("worker --queue evaluate", "jobs"),
        ("worker --queue finetune", "train"),
        ("match a.png --text b", "serve"),
        ("classify a.png --label b", "serve"),
        ("embed a --out b.npy", "serve"),
        ("search b.npy c", "serve"),
        ("evaluate winoground --data a --model demo", "serve"),
        ("finetune --out a", "train"),
        ("finetune --help", "train"),
        ("convert a --architecture b --out c", "serve"),
        ("export a --out b", "serve"),
        ("keys create a", "serve"),
        ("doctor", "serve"),
    ],
)
def test_a_command_names_the_extra_that_it_lacks(
    client: Environment, foreign: Path, command: str, extra: str
) -> None:
    done = client.run("python", "-m", "sds_clip", *command.split(), cwd=foreign)
    assert done.returncode == 2
    assert f"pip install 'sds-clip[{extra}]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_works_on_python_3_13(
    wheel: Path, foreign: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    python = shutil.which("python3.13")
    if python is None or subprocess.run([python, "-V"], capture_output=True, check=False).returncode:
        pytest.skip("there is no python3.13 here")
    environment = Environment(tmp_path_factory.mktemp("python3.13"), python)
    environment.install(wheel)
    assert (
        environment.run("python", "-c", "from sds_clip import Client; Client()", cwd=foreign).returncode == 0
    )
    done = environment.run(
        "python", "-m", "sds_clip", "jobs", "list", "--url", "http://127.0.0.1:1", cwd=foreign
    )
    assert done.returncode == 2
    assert done.stderr.startswith("sds-clip: http://127.0.0.1:1 cannot be reached")
