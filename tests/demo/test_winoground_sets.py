import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sds_clip.demo.render import render
from sds_clip.demo.winoground_sets import (
    COLOR_SWAP,
    KINDS,
    WinogroundItem,
    save_png,
    winoground_items,
    write_winoground,
)
from sds_clip.demo.world import Split, combination_split
from sds_clip.models.evaluation.winoground import winoground_benchmark

DATA = Path(__file__).parents[2] / "demo" / "data"
STORED = (Split.VALIDATION, Split.HELD_OUT)


@pytest.fixture(scope="module", params=STORED)
def split(request: pytest.FixtureRequest) -> Split:
    return Split(request.param)


@pytest.fixture(scope="module")
def items(split: Split) -> list[WinogroundItem]:
    return winoground_items(split)


def test_every_kind_has_150_items_without_repeats(items: list[WinogroundItem]) -> None:
    assert Counter(item.kind for item in items) == dict.fromkeys(KINDS, 150)
    assert len({(item.kind, frozenset(item.captions)) for item in items}) == 450


def test_all_scenes_belong_to_the_part(items: list[WinogroundItem], split: Split) -> None:
    assert {combination_split(scene) for item in items for scene in item.scenes} == {split}


def test_captions_of_attributes_and_objects_hold_the_same_words(items: list[WinogroundItem]) -> None:
    for item in items:
        if item.kind != "relation":
            one, other = item.captions
            assert sorted(one.split()) == sorted(other.split())
            assert one != other


def test_captions_of_relation_differ_in_the_direction_alone(items: list[WinogroundItem]) -> None:
    reverse = {"left": "right", "above": "below", "over": "under", "higher": "lower", "atop": "beneath"}
    reverse |= {after: before for before, after in reverse.items()}
    for item in items:
        if item.kind == "relation":
            one, other = item.captions
            assert other == " ".join(reverse.get(word, word) for word in one.split())
            assert one != other


def test_captions_of_color_swap_exchange_the_colours_and_say_no_relation() -> None:
    items = winoground_items(Split.VALIDATION, 30, kinds=[COLOR_SWAP])
    assert {item.kind for item in items} == {COLOR_SWAP}
    for item in items:
        colours = {
            thing.colour: other.colour
            for thing, other in zip(*(scene.things for scene in item.scenes), strict=True)
        }
        one, other = item.captions
        assert without_articles(other) == [colours.get(word, word) for word in without_articles(one)]
        assert not {"left", "right", "above", "below"} & {*one.split()}


def without_articles(caption: str) -> list[str]:
    return [word for word in caption.split() if word not in ("a", "an")]


def test_larger_set_begins_with_the_smaller_one_and_another_seed_draws_others() -> None:
    small, large = (winoground_items(Split.VALIDATION, count, kinds=["objects"]) for count in (5, 20))
    assert large[:5] == small
    other = winoground_items(Split.VALIDATION, 20, kinds=["objects"], seed=99)
    assert not {item.captions for item in other} & {item.captions for item in large}


def test_pictures_of_attributes_differ_in_colour_alone(items: list[WinogroundItem]) -> None:
    for item in items:
        if item.kind == "attributes":
            one, other = (render(scene) for scene in item.scenes)
            shape_of_one, shape_of_other = ((pixels != pixels[0, 0]).any(axis=2) for pixels in (one, other))
            assert (one[0, 0] == other[0, 0]).all()
            # An edge pixel hardly covered may round to the background under one of the colours.
            assert (shape_of_one != shape_of_other).sum() <= 8
            assert (one != other).any()


def test_pictures_of_objects_and_relation_hold_the_same_objects(items: list[WinogroundItem]) -> None:
    for item in items:
        if item.kind != "attributes":
            one, other = item.scenes
            assert one.background == other.background
            for before, after in zip(one.things, other.things, strict=True):
                assert (before.shape, before.rgb, before.radius_px) == (
                    after.shape,
                    after.rgb,
                    after.radius_px,
                )
                assert (before.x_px, before.y_px) != (after.x_px, after.y_px)


def test_stored_set_is_the_one_that_the_code_makes(items: list[WinogroundItem], split: Split) -> None:
    records = [json.loads(line) for line in (DATA / split / "examples.jsonl").read_text().splitlines()]
    assert [(record["caption_0"], record["caption_1"]) for record in records] == [
        item.captions for item in items
    ]
    assert [record["tag"] for record in records] == [item.kind for item in items]
    for record, item in zip(records, items, strict=True):
        for side in (0, 1):
            stored = Image.open(DATA / split / "images" / f"{record[f'image_{side}']}.png").convert("RGB")
            # Another machine's float32 may round an edge pixel to the next of 16 levels.
            assert (np.asarray(stored) != render(item.scenes[side])).mean() < 0.001


def test_stored_set_reads_as_winoground(split: Split) -> None:
    stored = winoground_benchmark(DATA / split).items
    assert len(stored) == 450
    assert stored[7].images[1].path.name == "ex_7_img_1.png"
    assert Counter(item.tags for item in stored) == {(kind,): 150 for kind in KINDS}


def test_stored_sets_have_winogrounds_own_fields(split: Split) -> None:
    first = json.loads((DATA / split / "examples.jsonl").read_text().splitlines()[0])
    assert list(first) == [
        "id", "image_0", "image_1", "caption_0", "caption_1",
        "tag", "secondary_tag", "num_main_preds", "collapsed_tag",
    ]  # fmt: skip
    assert (first["id"], first["image_0"], first["image_1"]) == (0, "ex_0_img_0", "ex_0_img_1")


def test_stored_pictures_stay_small() -> None:
    assert sum(file.stat().st_size for file in DATA.glob("*.zip")) < 1_000_000


def test_pictures_are_those_of_the_archive(split: Split) -> None:
    with zipfile.ZipFile(DATA / f"{split}.zip") as archive:
        assert len(archive.namelist()) == 900
        for name in archive.namelist():
            assert (DATA / split / name).read_bytes() == archive.read(name)


def test_palette_png_keeps_every_pixel(tmp_path: Path) -> None:
    for number, item in enumerate(winoground_items(Split.VALIDATION, per_kind=5)):
        save_png(tmp_path / f"{number}.png", item.scenes[0])
        stored = np.asarray(Image.open(tmp_path / f"{number}.png").convert("RGB"))
        assert (stored == render(item.scenes[0])).all()


def test_writing_twice_gives_the_same_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_winoground(tmp_path / folder, winoground_items(Split.VALIDATION, per_kind=5))
    for file in (tmp_path / "one").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
