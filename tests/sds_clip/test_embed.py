"""`sds-clip embed` and `sds-clip search`: the model's numbers, refusals, and the same through a service."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from sds_clip.cli import main
from sds_clip.models.vectors.files import open_vectors
from tests.app.serverside import RunningServer, running_server
from tests.sds_clip.transcript import test_transcript  # noqa: F401

TEXT = "a red circle"


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for photo in photos:
        photo.rename(images / photo.name)
    return images


def embed(folder: Path, *more: str, model: str) -> int:
    out = str(folder.parent / "v.npy")
    return main(["embed", str(folder), "--out", out, "--model", model, "--precision", "float32", *more])


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["search", *arguments, "--json"]) == 0
    results: list[dict[str, object]] = json.loads(capsys.readouterr().out)["results"]
    return results


def test_embeddings_and_scores_are_open_clip_s(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(folder, model=f"local-dir:{checkpoint}") == 0
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{checkpoint}")
    model.eval()
    names = ["a.png", "b.jpg", "c.webp"]
    with torch.no_grad():
        pixels = torch.stack([preprocess(Image.open(folder / name)) for name in names])
        images = model.encode_image(pixels, normalize=True).numpy()
        texts = model.encode_text(
            open_clip.get_tokenizer(f"local-dir:{checkpoint}")([TEXT]), normalize=True
        ).numpy()
    vectors = open_vectors(folder.parent / "v.npy")
    assert [path for path, _ in vectors.records] == names
    np.testing.assert_allclose(vectors.blocks[0], images, atol=1e-5)
    scores = dict(zip(names, (images @ texts[0]).tolist(), strict=True))
    hits = found(capsys, str(vectors.path), TEXT, "--precision", "float32")
    assert [hit["path"] for hit in hits] == sorted(names, key=lambda name: -scores[name])
    assert [hit["score"] for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True), abs=1e-5)


def test_large_jpegs_are_scaled_in_bfloat16_and_a_file_keeps_the_decoding_with_which_it_was_begun(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grain = np.random.default_rng(0).integers(0, 256, (500, 700, 3), dtype=np.uint8)
    Image.fromarray(grain).save(folder / "large.jpg")
    out, model = folder.parent / "v.npy", f"local-dir:{checkpoint}"

    def embedded(precision: str) -> np.ndarray:
        assert (
            main(["embed", str(folder), "--out", str(out), "--model", model, "--precision", precision]) == 0
        )
        vectors = open_vectors(out)
        rows = {path: vectors.row(row) for row, (path, _) in enumerate(vectors.records)}
        out.unlink()
        out.with_suffix(".about.json").rename(out.with_suffix(".old"))
        return np.array([rows["b.jpg"], rows["large.jpg"]])

    whole, scaled, whole_again = map(embedded, ("float32", "float32+scaled", "float32+full"))
    np.testing.assert_array_equal(whole, whole_again)
    np.testing.assert_array_equal(whole[0], scaled[0])
    assert np.abs(whole[1] - scaled[1]).max() > 1e-4
    assert embed(folder, "--precision", "float32+scaled", model=model) == 0
    assert open_vectors(out).about.decoding == 2
    Image.fromarray(grain).save(folder / "larger.jpg", quality=74)
    assert embed(folder, model=model) == 0  # in float32, whose own decoding is full
    vectors = open_vectors(out)
    assert vectors.about.decoding == 2
    capsys.readouterr()
    assert embed(folder, "--precision", "float32+full", model=model) == 2
    assert "the way that images are decoded is scaled there and full here" in capsys.readouterr().err
    (hit,) = found(
        capsys, str(out), "--image", str(folder / "larger.jpg"), "--precision", "float32", "--top-k", "1"
    )
    assert hit["score"] == pytest.approx(1, abs=1e-6)


def test_a_service_says_how_it_decodes(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    out = folder.parent / "served.npy"
    command = ["embed", str(folder), "--out", str(out)]
    model = f"local-dir:{checkpoint}"
    with running_server(
        tmp_path, "--model", model, "--device", "cpu", "--precision", "float32+scaled"
    ) as server:
        assert main([*command, "--url", server.url]) == 0
    assert open_vectors(out).about.decoding == 2


@pytest.mark.long
def test_a_base_installation_embeds_and_searches_arrays_without_pyarrow(
    checkpoint: Path, folder: Path
) -> None:
    code = "import sys; sys.modules['pyarrow'] = None; from sds_clip.cli import main; sys.exit(main(sys.argv[1:]))"
    out, model = str(folder.parent / "v.npy"), ["--model", f"local-dir:{checkpoint}"]
    for arguments in (["embed", str(folder), "--out", out, *model], ["search", out, TEXT, *model]):
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def test_a_service_gives_the_same_rows_and_the_same_order(
    service: RunningServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "d.png").write_bytes(b"no image")
    here, there = str(folder.parent / "v.npy"), str(folder.parent / "served.npy")
    assert embed(folder, model="demo") == 0
    assert main(["embed", str(folder), "--out", there, "--url", service.url]) == 0
    ours, theirs = open_vectors(Path(here)), open_vectors(Path(there))
    assert list(ours.records) == list(theirs.records)
    assert theirs.about.version == ours.about.version
    np.testing.assert_allclose(ours.blocks[0], theirs.blocks[0], atol=2e-2)
    errors = [json.loads(Path(path).with_suffix(".errors.jsonl").read_text()) for path in (here, there)]
    assert errors[0]["code"] == errors[1]["code"] == "image_format"
    hits = found(capsys, there, TEXT, "--url", service.url)
    assert hits == found(capsys, there, TEXT, "--url", service.url)
    assert main(["search", there, TEXT]) == 2
    assert "A service made these embeddings" in capsys.readouterr().err
    similar = found(capsys, there, "--image", str(folder / "a.png"), "--url", service.url, "--top-k", "1")
    assert similar[0]["path"] == "a.png"


def test_an_image_that_is_too_large_for_a_service_is_listed_and_the_others_embedded(
    folder: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "large.png")
    out = folder.parent / "served.npy"
    with running_server(tmp_path, "--model", "demo", SDS_CLIP_MAX_BODY_BYTES="200000") as server:
        assert main(["embed", str(folder), "--out", str(out), "--url", server.url]) == 0
    assert [path for path, _ in open_vectors(out).records] == ["a.png", "b.jpg", "c.webp"]
    error = json.loads(out.with_suffix(".errors.jsonl").read_text())
    assert (error["path"], error["code"]) == ("large.png", "body_too_large")
