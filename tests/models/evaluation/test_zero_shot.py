import json
import shutil
from pathlib import Path

import pytest
import torch
from open_clip import build_zero_shot_classifier
from PIL import Image

from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.metrics import wilson
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.zero_shot import (
    NAMED_TEMPLATES,
    ZeroShot,
    class_margins,
    class_names,
    template_set,
    zero_shot_benchmark,
)
from tests.benchmark_sets import CLASSES, picture, save_folders
from tests.plain_metrics import accuracies
from tests.tars import save_tar, tar_of


def save_shards(folder: Path, per_class: int = 3) -> Path:
    """The samples of `save_folders`, in two shards, as CLIP_benchmark's export writes them."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("\n".join(name.replace("_", " ") for name in CLASSES))
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    samples = [(target, number) for target in range(len(CLASSES)) for number in range(per_class)]
    for shard, chunk in enumerate([samples[:10], samples[10:]]):
        members: dict[str, bytes] = {}
        for place, (target, number) in enumerate(chunk):
            members[f"s{place:07}.cls"] = str(target).encode()
            members[f"s{place:07}.webp"] = picture(10 * target + number)
        save_tar(folder / f"test/{shard}.tar", members)
    return folder


def test_margins_are_as_worked_out_by_hand() -> None:
    scores = torch.tensor(
        [
            [0.9, 0.1, 0.2, 0.3, 0.4, 0.5],  # right
            [0.5, 0.5, 0.1, 0.1, 0.1, 0.1],  # a tie for the first place, which is a miss
            [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],  # sixth
            [0.2, 0.2, 0.3, 0.4, 0.5, 0.6],  # tied for fifth, which is a miss too
        ]
    )
    margins = class_margins(scores, torch.tensor([0, 0, 0, 0]))
    assert [row["acc1"] for row in margins] == pytest.approx([0.4, 0, -0.5, -0.4])
    assert [row["acc5"] for row in margins] == pytest.approx([0.8, 0.4, -0.1, 0])
    assert margins[1]["acc1"] == 0
    assert margins[3]["acc5"] == 0


def test_margins_agree_with_ranks_where_ties_are_many() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 4, (500, 12), generator=generator) / 3
    targets = torch.randint(0, 12, (500,), generator=generator)
    margins, expected = class_margins(scores, targets), accuracies(scores, targets)
    for name in ("acc1", "acc5"):
        assert sum(row[name] > 0 for row in margins) / 500 == pytest.approx(expected[name])


def test_five_classes_have_no_acc5() -> None:
    assert class_margins(torch.rand(2, 5), torch.tensor([0, 1]))[0].keys() == {"acc1"}


def run(clip: Clip, benchmark: ZeroShot, folder: Path):  # noqa: ANN201
    with ClipScorer(clip, folder, batch_size=4) as scorer:
        return run_benchmark(benchmark, scorer)


def test_figures_are_those_of_open_clips_classifier(tiny_clip: Clip, tmp_path: Path) -> None:
    folder = save_folders(tmp_path / "set")
    labels = [name.replace("_", " ") for name in CLASSES]
    weights = build_zero_shot_classifier(
        tiny_clip.network, tiny_clip.tokenizer, labels, [lambda c: f"a photo of a {c}."], device="cpu"
    )
    images = [
        Image.open(file).convert("RGB") for name in CLASSES for file in sorted((folder / name).iterdir())
    ]
    features = tiny_clip.encode_image(torch.stack([tiny_clip.preprocess(image) for image in images]))
    targets = torch.arange(len(CLASSES)).repeat_interleave(3)
    expected = accuracies(features @ weights, targets)

    results = run(tiny_clip, zero_shot_benchmark(folder), tmp_path / "kept")

    assert {name: metric.value for name, metric in results.metrics.items()} == pytest.approx(expected)
    chances = {name: metric.chance for name, metric in results.metrics.items()}
    assert chances == pytest.approx({"acc1": 1 / 7, "acc5": 5 / 7, "mean_per_class_recall": 1 / 7})
    right = round(expected["acc1"] * 21)
    assert (results.metrics["acc1"].low, results.metrics["acc1"].high) == wilson(right, 21)
    assert list(results.by_tag) == sorted(labels)
    assert results.items[0].id == "brown_dog/0.png"


def test_shards_give_the_figures_of_folders(tiny_clip: Clip, tmp_path: Path) -> None:
    folders = run(tiny_clip, zero_shot_benchmark(save_folders(tmp_path / "a")), tmp_path / "kept")
    shards = run(tiny_clip, zero_shot_benchmark(save_shards(tmp_path / "b")), tmp_path / "kept")
    assert shards.metrics == folders.metrics
    assert shards.by_tag == folders.by_tag
    assert [item.margins for item in shards.items] == [item.margins for item in folders.items]
    # A report cannot open an image inside an archive.
    assert shards.items[0].images == ()


def test_unequal_classes_are_weighed_alike_in_the_mean_recall(tiny_clip: Clip, tmp_path: Path) -> None:
    folder = save_folders(tmp_path / "set", per_class=2)
    (folder / "rat/1.png").unlink()
    results = run(tiny_clip, zero_shot_benchmark(folder), tmp_path / "kept")
    recall = {tag: [i.correct["acc1"] for i in results.items if i.tags == (tag,)] for tag in results.by_tag}
    assert [len(recall[name]) for name in ("pig", "rat")] == [2, 1]
    expected = sum(sum(right) / len(right) for right in recall.values()) / len(recall)
    assert results.metrics["mean_per_class_recall"].value == pytest.approx(expected)


def test_classes_and_templates_come_from_files(tmp_path: Path) -> None:
    folder = save_folders(tmp_path / "set", per_class=1)
    (tmp_path / "names.json").write_text(json.dumps({name: f"my {name}" for name in CLASSES}))
    (tmp_path / "templates.txt").write_text("the {c}\n{} and more\n")
    benchmark = zero_shot_benchmark(
        folder, classes=str(tmp_path / "names.json"), templates=str(tmp_path / "templates.txt")
    )
    assert benchmark.labels[0] == "my brown_dog"
    assert benchmark.templates == ("the {c}", "{} and more")


def test_named_sets_are_open_clips() -> None:
    assert len(class_names("imagenet", None)) == 1000
    assert {name: len(templates) for name, templates in NAMED_TEMPLATES.items()} == {
        "photo": 1,
        "simple": 7,
        "openai": 80,
    }
    assert template_set("openai")[0] == "a bad photo of a {}."


@pytest.mark.parametrize(
    ("given", "message"),
    [("imagenet", "1000 class names.* 7 classes"), ("birds", "neither a file nor one of")],
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        zero_shot_benchmark(save_folders(tmp_path / "set", per_class=1), classes=given)


def test_an_empty_name_between_others_is_refused(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join([*CLASSES[:3], "", *CLASSES[4:]]))
    with pytest.raises(EvaluationError, match="none of them empty"):
        zero_shot_benchmark(save_folders(tmp_path / "set", per_class=1), classes=str(names))


def test_a_template_without_a_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "templates.txt").write_text("a photo")
    with pytest.raises(EvaluationError, match=r"has no \{\} or \{c\}"):
        template_set(str(tmp_path / "templates.txt"))


def test_equal_names_are_told_apart_as_tags(tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(["crane", "crane", "c", "d", "e", "f", "g"]))
    folder = save_folders(tmp_path / "set", per_class=1)
    benchmark = zero_shot_benchmark(folder, classes=str(tmp_path / "names.json"))
    assert [item.tags for item in benchmark.items[:3]] == [("crane (0)",), ("crane (1)",), ("c",)]


def test_a_class_that_has_no_name_is_refused(tmp_path: Path) -> None:
    folder = save_shards(tmp_path / "set")
    (folder / "classnames.txt").write_text("dog\ncat\n")
    with pytest.raises(EvaluationError, match=r"2, .* 2 class names"):
        zero_shot_benchmark(folder)


@pytest.mark.parametrize(
    "damaged",
    [
        tar_of({"a.png": picture(0), "a.cls": b"0"})[:600],
        tar_of({"a.cls": b"0"}, "w:gz"),
        tar_of({"a.png": picture(0)}),
        tar_of({"a.png": picture(0), "a.cls": b"dog"}),
    ],
    ids=["cut", "zipped", "no class", "class in words"],
)
def test_a_damaged_shard_is_refused(tmp_path: Path, damaged: bytes) -> None:
    folder = save_shards(tmp_path / "set")
    (folder / "test/1.tar").write_bytes(damaged)
    with pytest.raises(EvaluationError, match=r"1\.tar"):
        zero_shot_benchmark(folder)


@pytest.mark.parametrize("layout", ["nothing", "files", "one class", "a class without images"])
def test_a_folder_of_another_layout_is_refused(tmp_path: Path, layout: str) -> None:
    folder = tmp_path / "set"
    if layout != "nothing":
        folder.mkdir()
    if layout == "one class":
        save_folders(folder, per_class=1)
        for name in CLASSES[1:]:
            shutil.rmtree(folder / name)
    if layout == "a class without images":  # COCO's annotations/, say
        save_folders(folder, per_class=1)
        (folder / "annotations").mkdir()
        (folder / "annotations/captions.json").write_text("{}")
    reason = {
        "nothing": "set",
        "files": "no folders",
        "one class": "at least 2",
        "a class without images": "annotations.* no images",
    }
    with pytest.raises(EvaluationError, match=reason[layout]):
        zero_shot_benchmark(folder)


def test_an_image_in_another_format_is_listed(tiny_clip: Clip, tmp_path: Path) -> None:
    folder = save_folders(tmp_path / "set")
    Image.new("RGB", (8, 8)).save(folder / "cat/9.bmp")
    with pytest.raises(EvaluationError, match=r"1 of 22 items cannot be used:\n  item cat/9\.bmp"):
        run(tiny_clip, zero_shot_benchmark(folder), tmp_path / "kept")
