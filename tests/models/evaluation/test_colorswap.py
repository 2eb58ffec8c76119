from pathlib import Path

from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.colorswap import colorswap
from tests.benchmark_sets import colorswap_entry, save_colorswap
from tests.models.evaluation.fixed_scorer import FixedScorer

ALL_RIGHT = [[0.9, 0.1], [0.2, 0.8]]
TEXT_ONLY = [[0.3, 0.6], [0.2, 0.7]]
IMAGE_ONLY = [[0.3, 0.2], [0.6, 0.7]]
TIE = [[0.5, 0.1], [0.5, 0.8]]


def test_figures_are_those_of_winoground(tmp_path: Path) -> None:
    entries = [
        colorswap_entry(0),
        colorswap_entry(1, image_source="dalle"),
        colorswap_entry(2, image_source="dalle"),
        colorswap_entry(3, caption_source="gpt"),
    ]
    scores = {"0": ALL_RIGHT, "1": TEXT_ONLY, "2": IMAGE_ONLY, "3": TIE}
    results = run_benchmark(colorswap(save_colorswap(tmp_path, entries)), FixedScorer(scores))
    assert (results.primary, results.outcome) == ("group_score", "group")
    found = {name: (metric.value, metric.ties, metric.chance) for name, metric in results.metrics.items()}
    assert found == {
        "text_score": (2 / 4, 1, 1 / 4),
        "image_score": (3 / 4, 0, 1 / 4),
        "group_score": (1 / 4, 1, 1 / 6),
        "group_match": (1, 0, 1 / 2),
    }
    assert {tag: metrics["image_score"].value for tag, metrics in results.by_tag.items()} == {
        "image: midjourney": 1,
        "image: dalle": 1 / 2,
        "caption: human": 2 / 3,
        "caption: gpt": 1,
    }


def test_the_test_set_is_read_from_the_folder_and_any_part_from_its_file(tmp_path: Path) -> None:
    folder = save_colorswap(tmp_path)
    save_colorswap(folder, [colorswap_entry(2)], "train.json")
    (first, _) = colorswap(folder).items
    assert [region.path for region in first.images] == [
        folder / "images/img_0_1.png",
        folder / "images/img_0_2.png",
    ]
    assert first.captions == ("a red cup 0 on a blue table", "a blue cup 0 on a red table")
    assert [item.id for item in colorswap(folder / "train.json").items] == ["2"]


def test_images_may_lie_elsewhere_and_sources_be_unknown(tmp_path: Path) -> None:
    entry = colorswap_entry(0)
    del entry["image_source"], entry["caption_source"]
    folder = save_colorswap(tmp_path / "set", [entry])
    (folder / "images").rename(tmp_path / "images")
    (item,) = colorswap(folder, tmp_path).items
    assert (item.images[0].path, item.tags) == (tmp_path / "images/img_0_1.png", ())
