import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, PixArtSigmaPipeline
from PIL import Image

from sds_clip.demo import teacher_grid
from sds_clip.demo.teacher_grid import (
    CAPTION_PX,
    COLUMNS,
    COUNT,
    MARGIN_PX,
    PICTURE_PX,
    draw_grid,
    grid_captions,
    sample,
)
from tests.teachers import save_pixart_teacher, save_sd_teacher


@pytest.fixture(scope="module", params=["stable diffusion", "pixart"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    if request.param == "pixart":
        return save_pixart_teacher(folder, pipeline=PixArtSigmaPipeline, prediction_type="v_prediction")
    return save_sd_teacher(folder, prediction_type="v_prediction")


def test_command_writes_the_same_file_each_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / "new" / "one.png", tmp_path / "other.png"]
    for file in files:
        command = ["teacher_grid", "--teacher", str(folder), "--out", str(file), "--steps", "2"]
        monkeypatch.setattr(sys, "argv", command)
        teacher_grid.main()
    one, other = (file.read_bytes() for file in files)
    assert one == other
    with Image.open(files[0]) as grid:
        assert grid.size == draw_grid([Image.new("RGB", (64, 64))] * COUNT, [""] * COUNT).size


def test_captions_are_two_pairs_in_each_relation_and_with_their_colours_exchanged() -> None:
    captions = grid_captions()
    assert len(captions) == COUNT
    for row in range(0, COUNT, COLUMNS):
        said = captions[row : row + COLUMNS]
        assert [" ".join(text.split()[3:-3]) for text in said] == [
            "to the left of", "to the right of", "above", "below",
        ]  # fmt: skip
    for text, exchanged in zip(captions[:COLUMNS], captions[COLUMNS : 2 * COLUMNS], strict=True):
        (_, colour, *_, other, _), words = text.split(), exchanged.split()
        assert (words[1], words[-2]) == (other, colour)
        assert (words[2], words[-1]) == (text.split()[2], text.split()[-1])


def test_picture_depends_on_its_place_and_caption_and_not_on_its_company(folder: Path) -> None:
    whole = sample(folder, ["a red circle", "a blue star", "a ring"], 2)
    part = sample(folder, ["a red circle", "a ring"], 2)
    assert [picture.size for picture in whole] == [(64, 64)] * 3
    difference = np.abs(np.asarray(whole[0], dtype=int) - np.asarray(part[0], dtype=int))
    assert difference.max() <= 1
    assert (np.asarray(whole[1]) != np.asarray(part[1])).any()


def test_pictures_stand_row_by_row_with_their_captions_to_the_right() -> None:
    colours = [(place * 20, 255 - place * 20, 0) for place in range(6)]
    pictures = [Image.new("RGB", (64, 64), colour) for colour in colours]
    grid = draw_grid(pictures, ["a red circle", "", *["a blue star left of a ring"] * 4])
    width, height = PICTURE_PX + CAPTION_PX + 2 * MARGIN_PX, PICTURE_PX + MARGIN_PX
    assert grid.size == (COLUMNS * width + MARGIN_PX, 2 * height + MARGIN_PX)
    written = []
    for place, colour in enumerate(colours):
        left, top = MARGIN_PX + place % COLUMNS * width, MARGIN_PX + place // COLUMNS * height
        assert grid.getpixel((left, top)) == colour
        assert grid.getpixel((left + PICTURE_PX - 1, top + PICTURE_PX - 1)) == colour
        beside = grid.crop((left + PICTURE_PX, top, left + width - MARGIN_PX, top + PICTURE_PX))
        written.append(int((np.asarray(beside.convert("L")) < 128).sum()))
    assert written[1] == 0 < written[0] < written[2] == written[3] == written[4] == written[5]


def test_longest_caption_stays_in_its_cell() -> None:
    text = "a photo of a little orange hourglass on the right side of a little purple hourglass"
    grid = draw_grid([Image.new("RGB", (64, 64), "white")], [text])
    dark = np.argwhere(np.asarray(grid.convert("L")) < 128)
    assert dark[:, 1].max() < MARGIN_PX + PICTURE_PX + MARGIN_PX + CAPTION_PX
    assert dark[:, 0].min() >= MARGIN_PX
    assert dark[:, 0].max() < MARGIN_PX + PICTURE_PX


def test_teacher_stored_in_float16_is_sampled_in_float32(folder: Path, tmp_path: Path) -> None:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half")
    pipeline.to(torch.float32).save_pretrained(tmp_path / "same")
    (half,), (same,) = (sample(tmp_path / name, ["a red circle"], 2) for name in ("half", "same"))
    assert half.tobytes() == same.tobytes()
