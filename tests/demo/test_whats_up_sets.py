import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sds_clip.demo.render import render
from sds_clip.demo.whats_up_sets import FILE, WhatsUpItem, whats_up_items, write_whats_up
from sds_clip.demo.world import Relation, Split, combination_split
from sds_clip.models.evaluation.whats_up import whats_up


@pytest.fixture(scope="module")
def items() -> list[WhatsUpItem]:
    return whats_up_items(Split.VALIDATION, 40)


def test_items_belong_to_the_part_and_repeat_no_caption(items: list[WhatsUpItem]) -> None:
    assert {combination_split(scene) for item in items for scene in item.scenes} == {Split.VALIDATION}
    assert len({caption for item in items for caption in item.captions}) == 4 * len(items)


def test_scenes_of_an_item_differ_in_places_alone(items: list[WhatsUpItem]) -> None:
    for item in items:
        assert [scene.relation for scene in item.scenes] == list(Relation)
        assert (
            len(
                {
                    tuple((thing.shape, thing.rgb, thing.radius_px) for thing in scene.things)
                    for scene in item.scenes
                }
            )
            == 1
        )
        left, right, above, below = (scene.things for scene in item.scenes)
        assert left[0].x_px < left[1].x_px
        assert right[0].x_px > right[1].x_px
        assert above[0].y_px < above[1].y_px
        assert below[0].y_px > below[1].y_px


def test_captions_name_the_same_object_first_and_say_where_it_is(items: list[WhatsUpItem]) -> None:
    said = {"left": "left", "right": "right"} | dict.fromkeys(("above", "over", "higher", "atop"), "above")
    said |= dict.fromkeys(("below", "under", "lower", "beneath"), "below")
    for item in items:
        found = [{said[word] for word in caption.split() if word in said} for caption in item.captions]
        assert found == [{"left"}, {"right"}, {"above"}, {"below"}]
        first = item.scenes[0].things[0]
        for caption in item.captions:
            words = caption.split()
            nouns = [
                thing.shape
                for thing in sorted(item.scenes[0].things, key=lambda thing: words.index(thing.shape))
            ]
            assert nouns[0] == first.shape


def test_written_set_has_the_authors_layout(items: list[WhatsUpItem], tmp_path: Path) -> None:
    write_whats_up(tmp_path, items[:2])
    records = json.loads((tmp_path / FILE).read_text())
    assert [record["caption_options"][0] for record in records] == [*items[0].captions, *items[1].captions]
    assert all(sorted(record["caption_options"]) == sorted(items[0].captions) for record in records[:4])
    for record, scene in zip(records, [*items[0].scenes, *items[1].scenes], strict=True):
        stored = tmp_path / record["image_path"].removeprefix("data/")
        assert (np.asarray(PIL.Image.open(stored).convert("RGB")) == render(scene)).all()


def test_written_set_is_measured_as_the_published_one(items: list[WhatsUpItem], tmp_path: Path) -> None:
    write_whats_up(tmp_path, items[:2])
    benchmark = whats_up(tmp_path)
    assert [item.captions[0] for item in benchmark.items] == [*items[0].captions, *items[1].captions]
    numbers = [f"Controlled_Images_A/{number}" for number in range(8)]
    assert sorted(benchmark.groups["pair"]) == [tuple(numbers[start : start + 2]) for start in (0, 2, 4, 6)]
    assert sorted(benchmark.groups["set"]) == [tuple(numbers[:4]), tuple(numbers[4:])]
