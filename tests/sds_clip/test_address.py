"""Whether the service of the embedded run is there."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from sds_clip.app.keys import SCOPES, create_key
from sds_clip.app.settings import Settings
from sds_clip.commands.up import Address, announce
from sds_clip.database import embedded_database
from tests.app.serverside import running_server
from tests.sds_clip.embedded import first_tip
from tests.sds_clip.scripted import Answer, scripted


@pytest.mark.parametrize(
    ("status", "code", "is_there"),
    [
        (200, None, True),
        (503, "unavailable", False),
        (503, "registry_away", False),
        (503, "version_damaged", True),  # workers are needed to publish it again
        (503, "model_not_ready", True),
    ],
)
def test_service_is_there_once_it_answers_or_only_lacks_the_promoted_version(
    status: int, code: str | None, is_there: bool
) -> None:
    address = Address("127.0.0.1", 0)
    body = json.dumps({"error": {"code": code, "message": "..."}}).encode()
    with scripted(Answer(status, body)) as server:
        address.port = int(server.url.rpartition(":")[2])
        assert address.is_there() is is_there
    assert address.problem == ("..." if is_there and code else None)


@pytest.mark.parametrize(("problem", "says"), [(None, "is ready at"), ("It is damaged.", "It is damaged.")])
def test_run_is_said_to_be_ready_only_where_it_is(
    problem: str | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = Address("127.0.0.1", 0)
    address.problem = problem
    announce(address, Settings())
    said = capsys.readouterr().out
    assert says in said
    assert ("is ready at" in said) == (problem is None)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("container", [None, "4f5e"])
def test_first_thing_to_do_next_is_within_what_the_demo_model_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, container: str | None
) -> None:
    address, keys = Address("127.0.0.1", 0), tmp_path / "keys.json"
    monkeypatch.setenv("SDS_CLIP_API_KEY", create_key(keys, "me", SCOPES))
    announce(address, Settings(models=["demo"], keys_file=keys), container)
    command = first_tip(capsys.readouterr().out)
    assert ("docker exec 4f5e cat /" in command) == bool(container)
    with running_server(tmp_path, "--model", "demo", "--keys-file", str(keys)) as server:
        here = command.replace("docker exec 4f5e ", "").replace(address.url, server.url)
        answer = subprocess.run(["sh", "-c", here], capture_output=True, check=True)
    assert json.loads(answer.stdout)["results"][0]["best_text"] == "a black circle"


def test_picture_of_the_first_tip_is_where_the_readme_has_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    announce(Address("127.0.0.1", 0), Settings(models=["demo"]))
    picture = "images=@demo/data/heldout/images/ex_177_img_0.png"
    assert picture in capsys.readouterr().out
    assert picture in (root / "README.md").read_text()


def test_the_second_demo_model_is_asked_about_a_picture_of_its_world(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    announce(Address("127.0.0.1", 0), Settings(models=["demo-pictures"]))
    assert "images=@demo/emoji/snail.png" in capsys.readouterr().out


def test_a_photo_is_only_for_a_model_that_knows_photos(capsys: pytest.CaptureFixture[str]) -> None:
    announce(Address("127.0.0.1", 0), Settings(models=["ViT-B-32/openai"]))
    assert "-F images=@photo.jpg" in capsys.readouterr().out


def test_first_tip_is_for_the_model_that_default_serves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = embedded_database(tmp_path / "data")
    with running_server(tmp_path, "--model", "demo", SDS_CLIP_DATABASE_URL=database):
        announce(Address("127.0.0.1", 0), Settings(models=["ViT-B-32/openai"]))
    assert "ex_177_img_0.png" in first_tip(capsys.readouterr().out)


def test_nobody_is_there() -> None:
    assert not Address("127.0.0.1", 0).is_there()
