import csv
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from models.data.open import open_pairs
from sds_clip.cli import main

CAPTIONS = ["a red circle", "two blue squares", "a horse", "a green tree", "a boat"]


@pytest.fixture
def folder(tmp_path: Path, photos: list[Path]) -> Path:
    """A folder with images in it, one of them in a folder of its own, and no captions."""
    images = tmp_path / "images"
    (images / "more").mkdir(parents=True)
    for number, photo in enumerate(photos[:3]):
        Image.open(photo).save(images / ("more" if number == 2 else "") / f"{number}.png")
    (tmp_path / "captions.txt").write_text("\n".join([*CAPTIONS, "", CAPTIONS[0]]) + "\n", encoding="utf-8")
    return images


def propose(checkpoint: Path, folder: Path, *more: str) -> int:
    arguments = ["propose", str(folder), "--captions", str(folder.parent / "captions.txt")]
    arguments += ["--model", f"local-dir:{checkpoint}", "--precision", "float32"]
    return main([*arguments, "--out", str(folder.parent / "proposed.csv"), *more])


def test_the_best_captions_are_open_clip_s_in_their_order(checkpoint: Path, folder: Path) -> None:
    assert propose(checkpoint, folder, "--count", "3") == 0
    table = folder.parent / "proposed.csv"
    pairs = open_pairs(table, images=folder)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{checkpoint}")
    model.eval()
    names = ["0.png", "1.png", "more/2.png"]
    assert [pairs.sample(index).name for index in range(len(pairs))] == names
    pixels = torch.stack([preprocess(Image.open(folder / name)) for name in names])
    with torch.no_grad():
        logits, _ = model.get_logits(pixels, open_clip.get_tokenizer(f"local-dir:{checkpoint}")(CAPTIONS))
    for index, order in enumerate(logits.argsort(dim=1, descending=True).tolist()):
        best, *others = (CAPTIONS[place] for place in order[:3])
        assert pairs.sample(index).captions == (best,)
        assert pairs.sample(index).negatives == (tuple(others),)


def test_an_unreadable_image_is_named_and_the_others_get_captions(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "1.png").write_bytes(b"no image")
    assert propose(checkpoint, folder) == 2
    assert "1.png" in capsys.readouterr().err
    with (folder.parent / "proposed.csv").open(encoding="utf-8", newline="") as file:
        assert [row["filepath"] for row in csv.DictReader(file)] == ["0.png", "more/2.png"]


def test_a_text_file_without_an_image_costs_the_others_nothing(
    checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "notes.txt").write_text("a horse\n", encoding="utf-8")
    assert propose(checkpoint, folder) == 2
    assert "notes" in capsys.readouterr().err
    assert len(open_pairs(folder.parent / "proposed.csv", images=folder)) == 3


def test_nothing_is_overwritten(checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "proposed.csv").write_text("mine", encoding="utf-8")
    assert propose(checkpoint, folder) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert (folder.parent / "proposed.csv").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("more", "message"), [(["--count", "1"], "--count 2"), (["--out", "missing/x.csv"], "no folder")]
)
def test_what_cannot_work_is_said_before_the_model_is_loaded(
    more: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert propose(Path("nowhere"), folder, *more) == 2
    assert message in capsys.readouterr().err


def test_one_caption_is_no_choice(checkpoint: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "captions.txt").write_text("a cat\n", encoding="utf-8")
    assert propose(checkpoint, folder) == 2
    assert "at least two captions" in capsys.readouterr().err


def test_a_folder_without_readable_images_writes_nothing(checkpoint: Path, folder: Path) -> None:
    for file in folder.rglob("*.png"):
        file.write_bytes(b"no image")
    assert propose(checkpoint, folder) == 2
    assert not (folder.parent / "proposed.csv").exists()
