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

from models.vectors.files import open_vectors
from sds_clip.cli import main
from tests.app.serverside import RunningServer, running_server

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


def test_an_image_finds_itself_first(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(folder, model=f"local-dir:{checkpoint}")
    (best,) = found(capsys, str(folder.parent / "v.npy"), "--image", str(folder / "b.jpg"), "--top-k", "1")
    assert best["path"] == "b.jpg"
    assert best["score"] == pytest.approx(1, abs=1e-2)


def test_another_version_is_refused(
    checkpoint: Path, siglip_folder: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(folder, model=f"local-dir:{checkpoint}")
    assert main(["search", str(folder.parent / "v.npy"), TEXT, "--model", f"local-dir:{siglip_folder}"]) == 2
    assert "Embeddings of two versions cannot be compared" in capsys.readouterr().err


def test_unreadable_images_are_counted_and_do_not_fail(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "b.jpg").write_bytes(b"no image")
    assert embed(folder, model=f"local-dir:{checkpoint}") == 0
    assert "1 images cannot be read" in capsys.readouterr().err
    (line,) = (folder.parent / "v.errors.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "b.jpg"


def test_what_is_left_out_is_said_by_type(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("d.heic", "e.heic", "f.txt", "g"):
        (folder / name).touch()
    assert embed(folder, model=f"local-dir:{checkpoint}") == 0
    assert (
        "Left out, as they are no images by their names: 2 .heic files, 1 .txt file, 1 file without a suffix."
        in (capsys.readouterr().err)
    )


def test_a_contact_sheet_is_written(checkpoint: Path, folder: Path) -> None:
    embed(folder, model=f"local-dir:{checkpoint}")
    page = folder.parent / "found.html"
    assert main(["search", str(folder.parent / "v.npy"), TEXT, "--html", str(page)]) == 0
    assert page.read_text(encoding="utf-8").count("data:image/webp") == 3


def test_pictures_that_were_moved_are_told_with_the_option_that_finds_them(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(folder, model=f"local-dir:{checkpoint}")
    folder.rename(folder.parent / "moved")
    arguments = ["search", str(folder.parent / "v.npy"), TEXT, "--html", str(folder.parent / "found.html")]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert f"3 of these images are not below {folder}, " in said
    assert "with --images" in said
    assert main([*arguments, "--top-k", "1"]) == 0
    assert f"1 of these images is not below {folder}, " in capsys.readouterr().err
    assert main([*arguments, "--images", str(folder.parent / "moved")]) == 0
    assert "--images" not in capsys.readouterr().err


def test_pictures_elsewhere_are_read_only_from_a_folder_that_was_named(
    checkpoint: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    vectors, page = str(tmp_path / "out" / "v.npy"), tmp_path / "found.html"
    assert main(["embed", str(folder), "--out", vectors, "--model", f"local-dir:{checkpoint}"]) == 0
    capsys.readouterr()
    for more, read, told in (([], 0, "3 of these images are not below"), (["--images", str(folder)], 3, "")):
        assert main(["search", vectors, TEXT, "--html", str(page), *more]) == 0
        assert page.read_text(encoding="utf-8").count("data:image/webp") == read
        assert told in (said := capsys.readouterr().err)
        assert ("--images" in said) == bool(told)


@pytest.mark.parametrize("reference", ["hf-hub:someone/model", "ViT-B-32/openai"])
def test_nothing_is_downloaded_because_a_file_says_so(
    reference: str, checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(folder, model=f"local-dir:{checkpoint}")
    vectors = str(folder.parent / "v.npy")
    about = folder.parent / "v.about.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "reference": reference}))
    capsys.readouterr()
    assert main(["search", vectors, TEXT]) == 2
    assert f"give --model {reference}." in capsys.readouterr().err
    assert len(found(capsys, vectors, TEXT, "--model", f"local-dir:{checkpoint}")) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "v.npy"], "Give either a text or --image"),
        (["search", "v.npy", "a", "--image", "b"], "Give either a text or --image"),
        (["search", "v.npy", " "], "The text is empty"),
        (["search", "v.npy", "a", "--open"], "--open needs --html"),
        (["search", "nowhere.npy", "a"], "There is no file nowhere.npy"),
        (["embed", ".", "--out", "v.csv"], "must end with"),
        (["embed", ".", "--out", "nowhere/v.npy"], "There is no folder"),
        (
            ["embed", ".", "--out", "v.npy", "--url", "http://127.0.0.1:1", "--device", "cpu"],
            "leave them out",
        ),
    ],
)
def test_what_cannot_work_is_said_before_a_model_is_loaded(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_parquet_without_pyarrow_says_which_extra_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sds_clip.extras.find_spec", lambda name: None if name == "pyarrow" else name)
    assert main(["embed", str(folder), "--out", str(folder.parent / "v.parquet")]) == 2
    assert "pip install 'sds-clip[tables]'" in capsys.readouterr().err


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
