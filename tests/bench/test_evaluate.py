import json
import os
from pathlib import Path

import pytest

if "CI" not in os.environ:
    pytest.importorskip("clip_benchmark", reason="needs pip install --no-deps clip-benchmark==1.6.1")

from bench import evaluate
from bench.evaluate_race import Encodes, Race, Times, check_same
from bench.sets import PARTS, sugarcrepe_set
from sds_clip.models.evaluation.results import Metric


def test_sugarcrepes_files_keep_their_lengths_and_share_their_images(tmp_path: Path) -> None:
    folder = sugarcrepe_set(tmp_path, 12)

    assert sum(PARTS.values()) == 7512
    counts = {name: len(json.loads((folder / f"{name}.json").read_text())) for name in PARTS}
    assert counts == {
        "add_att": 1,
        "add_obj": 3,
        "replace_att": 1,
        "replace_obj": 3,
        "replace_rel": 2,
        "swap_att": 1,
        "swap_obj": 1,
    }
    assert len(list((folder / "val2017").iterdir())) == 4


def test_figures_that_differ_by_more_than_an_item_stop_the_run() -> None:
    ours = {"acc": Metric(value=0.5, low=0.3, high=0.7, n=20, ties=0)}
    check_same(ours, {"acc": 0.55})
    with pytest.raises(RuntimeError, match=r"acc is 0\.5 here, and 0\.6 in CLIP_benchmark"):
        check_same(ours, {"acc": 0.6})


def test_missed_targets_are_named() -> None:
    def race(expected: float) -> Race:
        encodes = Encodes(8, 8)
        return Race("one", 4, encodes, encodes, expected, Times([2.0]), Times([1.8]))

    targets = evaluate.targets(race(1.0), race(2.0), {100: [500.0], 400: [530.0]})

    assert [target.value for target in targets] == pytest.approx([0.9, 0.45, 1.06])
    assert not any(target.met for target in targets)


# CLIP_benchmark leaves the files that it reads open.
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
def test_quick_run_prints_every_table(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "evaluation_peak_mib", lambda _: 100.0)

    evaluate.main(["--quick", "--model", str(tiny_folder), "--cache", str(tmp_path)])

    printed = capsys.readouterr().out
    assert f"`python -m bench.evaluate --quick --model {tiny_folder}" in printed
    for beginning in (
        "| Winoground | 4 | 8 of 8 | 8 of 8 |",
        "| SugarCrepe | 12 | ",
        "| 32 items, 64 images | 100 ",
        "| a U-Net call a pair and draw |",
    ):
        assert beginning in printed
    assert printed.count("(at least 0.95:") == 2
    assert "(at most 1.05: met)" in printed
