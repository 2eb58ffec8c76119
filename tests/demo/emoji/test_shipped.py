"""The student and the pictures that ship, read as a user would: by the model's reference, and from the archive."""

import io
import json
import zipfile
from pathlib import Path

import PIL.Image
import pytest

import sds_clip.models.checkpoints.sources as sources
from sds_clip.demo.emoji.build import attribution
from sds_clip.demo.emoji.scenes import ZERO_SHOT_TEMPLATES
from sds_clip.demo.emoji.student import model_config, preprocess_config
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.references import Demo
from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.zero_shot import class_weights, prompts
from sds_clip.models.errors import CheckpointError

EMOJI = Path(__file__).parents[3] / "demo" / "emoji"


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("demo-pictures", device="cpu", precision="float32")


def test_it_names_pictures_of_a_vendor_that_it_never_saw(clip: Clip) -> None:
    """Of 1,594 names. A linear map from pixels finds 22.3 %; demo/README.md has the table."""
    with zipfile.ZipFile(EMOJI / "pictures.zip") as archive:
        lines = [json.loads(line) for line in archive.read("names.jsonl").splitlines()]
        drawn = [PIL.Image.open(io.BytesIO(archive.read(f"{each['code']}.webp"))) for each in lines]
    white = PIL.Image.new("RGBA", drawn[0].size, "white")
    images = [PIL.Image.alpha_composite(white, each.convert("RGBA")).convert("RGB") for each in drawn]
    texts = encode_texts(clip, prompts([each["name"] for each in lines], ZERO_SHOT_TEMPLATES))
    scores = encode_images(clip, images, batch_size=128) @ class_weights(texts, len(ZERO_SHOT_TEMPLATES)).T
    found = [int(row.argmax()) == place for place, row in enumerate(scores)]
    assert len(found) == 1594
    assert sum(found) / len(found) > 0.29


def test_the_picture_of_the_first_request_is_a_snail(clip: Clip) -> None:
    texts = encode_texts(clip, ["a snail", "a turtle", "a key", "a banana"])
    (scores,) = encode_images(clip, [PIL.Image.open(EMOJI / "snail.png")]) @ texts.T
    assert int(scores.argmax()) == 0


def test_the_folder_is_what_the_code_describes() -> None:
    config = json.loads((EMOJI / "student" / "open_clip_config.json").read_text())
    assert config["model_cfg"] == model_config(config["model_cfg"]["text_cfg"]["vocab_size"])
    assert config["preprocess_cfg"] == preprocess_config()
    assert (EMOJI / "ATTRIBUTION.md").read_text() == attribution()


def test_where_it_does_not_ship_the_error_says_who_has_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sources, "demo_folder", lambda name: tmp_path / name)
    with pytest.raises(CheckpointError, match=r"The package leaves demo-pictures out\. Start from a clone"):
        sources.resolve(Demo("demo-pictures"))


def test_what_ships_stays_small() -> None:
    shipped = [*(EMOJI / "student").iterdir(), EMOJI / "pictures.zip", EMOJI / "snail.png"]
    assert sum(file.stat().st_size for file in shipped) < 12_000_000
