from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image

from sds_clip.cli import main
from sds_clip.models.data.open import open_pairs
from tests.sds_clip.transcript import test_transcript  # noqa: F401

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
