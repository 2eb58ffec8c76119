import json
from pathlib import Path

import pytest
import torch

from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.catalog import check_scorer
from sds_clip.models.evaluation.comparison import compare
from sds_clip.models.evaluation.metrics import mean_of_shares, wilson
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.sugarcrepe import (
    FILES,
    sugarcrepe,
    sugarcrepe_pp,
    sugarcrepe_pp_text,
    text_only_margin,
)
from tests.benchmark_sets import entry, save_files
from tests.models.evaluation.fixed_scorer import FixedScorer

RIGHT, WRONG, TIE = [[0.3], [0.2]], [[0.2], [0.3]], [[0.25], [0.25]]


def test_figures_are_as_worked_out_by_hand(tmp_path: Path) -> None:
    # Keys have gaps, as in the published files, and one image is in both.
    folder = save_files(
        tmp_path,
        swap_obj={"0": entry(0), "4": entry(1), "5": entry(2), "9": entry(3)},
        add_att={"1": entry(0), "2": entry(5)},
    )
    scores = {
        "swap_obj/0": RIGHT,
        "swap_obj/4": WRONG,
        "swap_obj/5": TIE,
        "swap_obj/9": WRONG,
        "add_att/1": RIGHT,
        "add_att/2": RIGHT,
    }
    results = run_benchmark(sugarcrepe(folder), FixedScorer(scores))
    assert (results.primary, results.outcome) == ("macro_acc", "text")
    assert results.metrics["acc"].value == 3 / 6
    assert (results.metrics["acc"].low, results.metrics["acc"].high) == wilson(3, 6)
    assert results.metrics["macro_acc"].value == (1 / 4 + 1) / 2
    macro = results.metrics["macro_acc"]
    assert (macro.value, macro.low, macro.high) == mean_of_shares([(2, 2), (1, 4)])
    assert {tag: (of["acc"].value, of["acc"].n, of["acc"].ties) for tag, of in results.by_tag.items()} == {
        "add_att": (1, 2, 0),
        "swap_obj": (1 / 4, 4, 1),
    }
    assert {metric.chance for metric in results.metrics.values()} == {1 / 2}
    assert results.items[0].margins == pytest.approx({"text": 0.1})
    assert results.provenance["unique_images"] == 5
    assert results.provenance["macro_tags"] == ["add_att", "swap_obj"]
    assert results.macro_tags == ("add_att", "swap_obj")


def test_results_can_be_compared_in_the_mean_over_files(tmp_path: Path) -> None:
    folder = save_files(
        tmp_path, swap_obj={"0": entry(0), "1": entry(1), "2": entry(2)}, add_att={"0": entry(3)}
    )
    benchmark = sugarcrepe(folder)
    before = {"swap_obj/0": WRONG, "swap_obj/1": WRONG, "swap_obj/2": RIGHT, "add_att/0": WRONG}
    comparison = compare(
        run_benchmark(benchmark, FixedScorer(before)),
        run_benchmark(benchmark, FixedScorer(before | {"swap_obj/0": RIGHT, "add_att/0": RIGHT})),
    )
    assert comparison.macro is not None
    assert comparison.macro.difference == pytest.approx((1 / 3 + 1) / 2)
    assert comparison.headline.counts.gained == 2


def test_one_file_is_read_alone(tmp_path: Path) -> None:
    folder = save_files(tmp_path, **{name: {"3": entry(1)} for name in FILES})
    assert [item.id for item in sugarcrepe(folder / "swap_att.json").items] == ["swap_att/3"]
    assert len(sugarcrepe(folder).items) == 7


def test_images_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = save_files(tmp_path, add_obj={"0": entry(0)})
    (folder / "val2017").rename(tmp_path / "coco")
    benchmark = sugarcrepe(folder, tmp_path / "coco")
    assert benchmark.items[0].images[0].path == tmp_path / "coco/000000000000.jpg"


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    folder = save_files(tmp_path)
    one = json.dumps(entry(0))
    (folder / "swap_att.json").write_text(f'{{"0": {one}, "0": {one}}}')
    with pytest.raises(EvaluationError, match="the key '0' twice"):
        sugarcrepe(folder)


def test_both_true_captions_must_beat_the_false_one(tmp_path: Path) -> None:
    records = [entry(0, id=number, caption2=f"one dog {number}") for number in range(5)]
    folder = save_files(tmp_path, replace_object=records)
    scores = {
        "replace_object/0": [[0.3], [0.4], [0.2]],
        "replace_object/1": [[0.3], [0.1], [0.2]],
        "replace_object/2": [[0.1], [0.3], [0.2]],
        "replace_object/3": [[0.3], [0.2], [0.2]],
        "replace_object/4": [[0.1], [0.1], [0.2]],
    }
    results = run_benchmark(sugarcrepe_pp(folder), FixedScorer(scores))
    assert [item.correct["text"] for item in results.items] == [True, False, False, False, False]
    assert results.metrics["acc"].value == 1 / 5
    assert results.metrics["acc"].ties == 1
    assert results.metrics["acc"].chance == 1 / 3  # that of three captions the false one comes last
    assert results.items[1].margins["text"] == pytest.approx(-0.1)


@pytest.mark.parametrize(
    ("both", "first", "second", "margin"),
    [(0.75, 0.5, 0.25, 0.25), (0.75, 0.25, 0.875, -0.125), (0.5, 0.5, 0.25, 0), (0.25, 0.5, 0.75, -0.5)],
)
def test_true_captions_must_be_closer_to_each_other_than_either_is_to_the_false_one(
    both: float, first: float, second: float, margin: float
) -> None:
    similarities = torch.tensor([[1, both, first], [both, 1, second], [first, second, 1]])
    assert text_only_margin(similarities) == margin


def test_text_only_task_compares_the_embeddings_of_captions_without_images(
    tiny_clip: Clip, tmp_path: Path
) -> None:
    records = [
        entry(
            0, id=number, caption=f"a dog {number}", caption2=f"{number * 7} hounds", negative_caption="a cat"
        )
        for number in range(20)
    ]
    records.append(entry(0, id=20, caption="a dog", caption2="a hound", negative_caption="a hound"))
    records.append(entry(0, id=21, caption="a dog", caption2="a dog", negative_caption="a cat on a mat"))
    folder = save_files(tmp_path / "set", swap_object=records[:10], replace_object=records[10:])
    for image in (folder / "val2017").iterdir():
        image.unlink()

    with ClipScorer(tiny_clip, tmp_path / "kept") as scorer:
        results = run_benchmark(sugarcrepe_pp_text(folder), scorer)

    assert (results.primary, results.outcome) == ("macro_acc", "text")
    for item in results.items:
        c, c2, n = tiny_clip.encode_text(tiny_clip.tokenizer(list(item.captions))).double()
        assert item.margins["text"] == pytest.approx(float(c @ c2 - torch.maximum(c @ n, c2 @ n)), abs=1e-5)
    by_id = {item.id: item for item in results.items}
    assert by_id["replace_object/20"].margins["text"] <= 0
    assert by_id["replace_object/21"].correct["text"]
    assert results.metrics["acc"].value == sum(item.correct["text"] for item in results.items) / 22
    assert {metric.chance for metric in results.metrics.values()} == {1 / 3}
    assert results.macro_tags == ("replace_object", "swap_object")
    assert results.provenance["unique_images"] == 0


def test_a_diffusion_model_has_no_embeddings_of_captions() -> None:
    with pytest.raises(EvaluationError, match="sugarcrepe-pp-text compares the features of a CLIP"):
        check_scorer("sugarcrepe-pp-text", "diffusion")
