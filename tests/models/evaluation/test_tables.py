"""Benchmarks as Parquet files and as folders that `datasets` saved give the items of their other layouts."""

import json
from pathlib import Path
from typing import Any

import pytest

from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import DataError, EvaluationError
from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.colorswap import colorswap
from sds_clip.models.evaluation.half_truths import half_truths
from sds_clip.models.evaluation.items import open_region
from sds_clip.models.evaluation.readers import read_benchmark
from sds_clip.models.evaluation.results import as_json
from sds_clip.models.evaluation.retrieval import retrieval_benchmark
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.winoground import winoground_benchmark
from sds_clip.models.evaluation.zero_shot import zero_shot_benchmark
from tests.benchmark_sets import CLASSES, picture, save_colorswap, save_folders, save_half_truths
from tests.models.evaluation.fixed_scorer import FixedScorer

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SETS = Path(__file__).parents[1] / "saved_sets"


def packed(records: list[dict[str, Any]], folder: Path, file: Path) -> Path:
    """The records as a Parquet file, with the images that they name inside, as the hub has them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            key: {"bytes": (folder / value).read_bytes(), "path": None}
            if key.startswith("image") and "source" not in key
            else value
            for key, value in record.items()
        }
        for record in records
    ]
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2)
    return file


def seen(benchmark: Benchmark) -> list[Any]:
    """All that a model is shown of each item."""
    return [
        (
            item.id,
            item.captions,
            item.tags,
            item.target,
            [open_region(image).tobytes() for image in item.images],
        )
        for item in benchmark.items
    ]


@pytest.mark.parametrize(
    "name", ["winoground", "winoground_parquet", "winoground_parquet/data/test-00000-of-00001.parquet"]
)
def test_winoground_is_read_as_the_library_saved_it(name: str, tmp_path: Path) -> None:
    benchmark = read_benchmark("winoground", SETS / name, work=tmp_path)
    assert [item.id for item in benchmark.items] == ["0", "1", "2"]
    assert benchmark.items[1].captions == ("red over blue 1", "blue over red 1")
    assert benchmark.items[1].tags == ("Relation",)
    levels = [[open_region(image).getpixel((0, 0)) for image in item.images] for item in benchmark.items]
    assert levels == [[(k, k, k), (100 + k, 100 + k, 100 + k)] for k in range(3)]
    assert str(benchmark.items[1].images[1]).endswith(", row 1, `image_1`")
    results = run_benchmark(
        benchmark, FixedScorer({item.id: [[1.0, 0.0], [0.0, 1.0]] for item in benchmark.items})
    )
    assert results.metrics["group_score"].value == 1
    assert results.provenance["unique_images"] == 6
    assert results.items[0].images == ()


def test_winoground_has_one_hash_in_every_layout(tmp_path: Path) -> None:
    lines = []
    (tmp_path / "images").mkdir()
    for item in winoground_benchmark(SETS / "winoground").items:
        number = int(item.id)
        for side, image in enumerate(item.images):
            open_region(image).save(tmp_path / f"images/{number}_{side}.png")
        names = {f"image_{side}": f"{number}_{side}" for side in (0, 1)}
        captions = {f"caption_{side}": item.captions[side] for side in (0, 1)}
        lines.append({"id": number, **names, **captions, "tag": "Relation", "collapsed_tag": "Relation"})
    (tmp_path / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert seen(winoground_benchmark(tmp_path)) == seen(winoground_benchmark(SETS / "winoground"))


def test_colorswap_is_read_as_the_hub_has_it(tmp_path: Path) -> None:
    folder = save_colorswap(tmp_path / "set")
    records = json.loads((folder / "test.json").read_text())
    file = packed(records, folder, tmp_path / "hub/data/test-00000-of-00001.parquet")
    for path in (file, file.parent, tmp_path / "hub"):
        assert seen(colorswap(path)) == seen(colorswap(folder))


def test_half_truths_are_read_as_the_hub_has_them(tmp_path: Path) -> None:
    folder = save_half_truths(tmp_path / "set")
    for file in folder.glob("*.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        packed(records, folder, tmp_path / f"hub/data/{file.stem}.parquet")
    from_hub = half_truths(tmp_path / "hub")
    assert sorted(seen(from_hub)) == sorted(seen(half_truths(folder)))
    assert set(from_hub.macro_tags) == {"coco_qwen", "coco_mistral", "cc3m_qwen"}
    assert from_hub.settings == {}
    one = half_truths(tmp_path / "hub/data/coco_qwen.parquet")
    assert one.settings == {"files_missing": ["coco_mistral", "cc3m_qwen"]}


def test_shards_of_half_truths_are_one_source(tmp_path: Path) -> None:
    folder = save_half_truths(tmp_path / "set")
    for file in folder.glob("*.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        for number, record in enumerate(records):
            name = f"hub/data/{file.stem}-{number:05}-of-{len(records):05}.parquet"
            packed([record], folder, tmp_path / name)
    from_hub, from_lines = half_truths(tmp_path / "hub"), half_truths(folder)
    assert sorted(seen(from_hub)) == sorted(seen(from_lines))
    assert {item.id for item in from_hub.items} == {item.id for item in from_lines.items}
    assert set(from_hub.macro_tags) == set(from_lines.macro_tags)
    assert from_hub.settings == {}


def test_record_without_a_column_is_refused_with_its_row(tmp_path: Path) -> None:
    file = packed([{"id": 1, "caption_1": "a"}], tmp_path, tmp_path / "test.parquet")
    with pytest.raises(EvaluationError, match=r"row 0: `caption_2`, `image_1`, `image_2` is missing"):
        colorswap(file)


def test_numbered_classes_have_the_names_that_the_library_wrote(tmp_path: Path) -> None:
    for name in ("shards", "parquet"):
        benchmark = zero_shot_benchmark(SETS / name)
        assert benchmark.labels == ("cat", "dog")
        assert [item.target for item in benchmark.items] == [0, 1, 0, 1, 0]
    (tmp_path / "names.txt").write_text("tom\nrex\n")
    assert zero_shot_benchmark(SETS / "shards", classes=str(tmp_path / "names.txt")).labels == ("tom", "rex")


def test_named_classes_are_those_of_folders(tmp_path: Path) -> None:
    folder = save_folders(tmp_path / "set")
    rows = [
        {"image": (folder / name / f"{number}.png").read_bytes(), "label": name}
        for name in CLASSES
        for number in range(3)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    table, folders = zero_shot_benchmark(tmp_path / "a.parquet"), zero_shot_benchmark(folder)
    assert [row[3:] for row in seen(table)] == [row[3:] for row in seen(folders)]
    assert table.labels == folders.labels


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], "does not name them"),
        ([-1, 1], "`label` is -1, which is no class"),
        ([None, "a"], "`label` is None, which is no class"),
        (["a", "a"], "needs at least 2"),
        ([0.5, 1.0], "has the type double"),
    ],
)
def test_labels_that_are_no_classes_are_refused(tmp_path: Path, labels: list[Any], message: str) -> None:
    pq.write_table(pa.table({"image": [picture(0), picture(1)], "label": labels}), tmp_path / "a.parquet")
    with pytest.raises((DataError, EvaluationError), match=message):
        zero_shot_benchmark(tmp_path / "a.parquet")


def test_retrieval_is_measured_on_tables_and_metadata(tiny_clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    texts = [[f"a picture {number}", f"number {number}"] for number in range(6)]
    for number in range(6):
        (tmp_path / f"set/{number}.png").write_bytes(picture(number))
    names = [f"{number}.png" for number in range(6)]
    lines = [{"file_name": name, "text": text} for name, text in zip(names, texts, strict=True)]
    (tmp_path / "set/metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    entries = [{"image": name, "caption": text} for name, text in zip(names, texts, strict=True)]
    (tmp_path / "set/captions.json").write_text(json.dumps(entries))
    table = pa.table({"image": [picture(number) for number in range(6)], "captions": texts})
    pq.write_table(table, tmp_path / "a.parquet")

    def figures(path: Path) -> dict[str, float]:
        with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
            results = run_benchmark(retrieval_benchmark(path), scorer)
        json.dumps(as_json(results))
        return {name: metric.value for name, metric in results.metrics.items()}

    expected = figures(tmp_path / "set/captions.json")
    for path in (tmp_path / "set", tmp_path / "set/metadata.jsonl", tmp_path / "a.parquet"):
        assert figures(path) == expected
    (tmp_path / "set/metadata.jsonl").unlink()
    rows = [f"{name},{each}" for name, of_image in zip(names, texts, strict=True) for each in of_image]
    (tmp_path / "set/metadata.csv").write_text("\n".join(["file_name,text", *rows]))
    for path in (tmp_path / "set", tmp_path / "set/metadata.csv"):
        assert figures(path) == expected


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (
            [picture(0), picture(0)],
            ["a", "b"],
            "rows a.parquet/00000000 and a.parquet/00000001 hold the same image",
        ),
        ([picture(0), picture(1)], ["a", " "], "`caption` must be a text that is not empty"),
        ([picture(0), picture(1)], ["a", None], "the image has no caption"),
        (["0.png", "../1.png"], ["a", "b"], "is not inside the folder"),
    ],
)
def test_table_that_retrieval_cannot_measure_is_refused(
    tmp_path: Path, images: list[Any], texts: list[Any], message: str
) -> None:
    pq.write_table(pa.table({"image": images, "caption": texts}), tmp_path / "a.parquet")
    with pytest.raises((DataError, EvaluationError), match=message):
        retrieval_benchmark(tmp_path / "a.parquet")


def test_damaged_images_are_named_by_their_row(tmp_path: Path) -> None:
    table = pa.table({"image": [picture(0), b"no picture", None], "caption": ["a", "b", "c"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(EvaluationError) as raised:
        run_benchmark(retrieval_benchmark(tmp_path / "a.parquet"), FixedScorer({}))
    for part in (
        "a.parquet, row 1, `image`: The image is not a JPEG",
        "row 2, `image` has no bytes in the table",
    ):
        assert part in str(raised.value)
