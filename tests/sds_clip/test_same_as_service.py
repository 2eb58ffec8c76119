"""The command line and the HTTP service answer with the same numbers."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from sds_clip.app.main import create_app
from sds_clip.app.settings import Settings
from sds_clip.cli import main
from sds_clip.models.checkpoints.load import load_clip


@pytest.fixture
def pictures(photos: list[Path], tmp_path: Path) -> list[Path]:
    """Those of every test, and the two that serving decodes in its own way: EXIF and 16-bit grey."""
    turned, deep = tmp_path / "turned.jpg", tmp_path / "deep.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(photos[0]).save(turned, exif=exif)
    Image.linear_gradient("L").convert("I").point(lambda value: value * 257).convert("I;16").save(deep)
    return [*photos, turned, deep]


@pytest.fixture
def service(checkpoint: Path, tmp_path: Path) -> Iterator[TestClient]:
    clip = load_clip(f"local-dir:{checkpoint}", device="cpu", precision="float32")
    app = create_app(Settings(data_dir=tmp_path / "data"), {"tiny": clip})
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def in_base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def by_command(capsys: pytest.CaptureFixture[str], checkpoint: Path, *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--model", f"local-dir:{checkpoint}", "--precision", "float32", "--json"]) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_match_answers_as_the_service_does(
    service: TestClient, checkpoint: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["a red circle", "two blue squares"]
    response = service.post("/match", json={"images": [in_base64(path) for path in pictures], "texts": texts})
    assert response.status_code == 200
    served = response.json()
    answer = by_command(capsys, checkpoint, "match", *map(str, pictures), "--text", *texts)
    assert answer["model"]["version"] == served["model"]["version"]
    for ours, theirs in zip(answer["results"], served["results"], strict=True):
        assert (ours["best"], ours["best_text"]) == (theirs["best"], theirs["best_text"])
        for field in ("scores", "logits", "probabilities"):
            assert ours[field] == pytest.approx(theirs[field], abs=1e-4 if field == "logits" else 1e-5)
    for row, other in zip(answer["text_probabilities"], served["text_probabilities"], strict=True):
        assert row == pytest.approx(other, abs=1e-5)


def test_classify_answers_as_the_service_does(
    service: TestClient, checkpoint: Path, pictures: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["circle", "square", "star"]
    body = {"images": [in_base64(path) for path in pictures], "labels": labels, "top_k": 2}
    response = service.post("/classify", json=body)
    assert response.status_code == 200
    answer = by_command(
        capsys, checkpoint, "classify", *map(str, pictures), "--label", *labels, "--top-k", "2"
    )
    for ours, theirs in zip(answer["results"], response.json()["results"], strict=True):
        assert [each["label"] for each in ours["predictions"]] == [
            each["label"] for each in theirs["predictions"]
        ]
        for mine, other in zip(ours["predictions"], theirs["predictions"], strict=True):
            assert mine["index"] == other["index"]
            assert mine["score"] == pytest.approx(other["score"], abs=1e-5)
            assert mine["probability"] == pytest.approx(other["probability"], abs=1e-5)
