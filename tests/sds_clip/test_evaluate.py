import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sds_clip.cli import main
from sds_clip.models.evaluation.results import Metric, read_results
from tests.benchmark_sets import (
    save_coco_spatial,
    save_colorswap,
    save_controlled,
    save_gqa_spatial,
    save_half_truths,
    save_mmvp,
)
from tests.checkpoints import save_tiny_clip
from tests.sds_clip.command_line import exit_code, parsed
from tests.sds_clip.transcript import test_transcript  # noqa: F401
from tests.teachers import save_sd_teacher


@pytest.fixture
def winoground(tmp_path: Path) -> Path:
    """Three items, the last with two equal images."""
    folder = tmp_path / "winoground"
    (folder / "images").mkdir(parents=True)
    lines = []
    for number, tag in enumerate(["Object", "Relation", "Relation"]):
        for side in (0, 1):
            image = (
                Image.effect_noise((40, 40), 40 + 50 * side * (number != 2) + number) if number != 2 else None
            )
            (image or Image.new("RGB", (40, 40), "red")).save(folder / f"images/ex_{number}_img_{side}.png")
        lines.append(
            {
                "id": number,
                "image_0": f"ex_{number}_img_0",
                "image_1": f"ex_{number}_img_1",
                "caption_0": f"some {number} before others",
                "caption_1": f"others before some {number}",
                "tag": f"fine {tag}",
                "collapsed_tag": tag,
            }
        )
    (folder / "examples.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


@pytest.fixture
def controlled(tmp_path: Path) -> None:
    save_controlled(tmp_path / "controlled")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_sd_teacher(tmp_path / "teacher")


def evaluate(checkpoint: Path, winoground: Path, *more: str) -> int:
    return main(
        ["evaluate", "winoground", "--model", f"local-dir:{checkpoint}", "--data", str(winoground), *more]
    )


def test_json_holds_every_share_and_tie(
    checkpoint: Path, winoground: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(checkpoint, winoground, "--json") == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["provenance"]["precision"] == "float32"
    assert answer["metrics"]["group_score"]["n"] == 3
    assert answer["metrics"]["image_score"]["ties"] == 1
    assert {tag: metrics["group_score"]["n"] for tag, metrics in answer["by_tag"].items()} == {
        "Object": 1,
        "Relation": 2,
        "tag: fine Object": 1,
        "tag: fine Relation": 2,
    }
    assert "items" not in answer


def test_the_file_lets_the_shares_be_computed_again(
    checkpoint: Path, winoground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "created" / "result"
    assert evaluate(checkpoint, winoground, "--out", str(out)) == 0
    results = read_results(out / "results.json")
    for name in ("text", "image", "group"):
        right = sum(item.correct[name] for item in results.items)
        assert results.metrics[f"{name}_score"].value == pytest.approx(right / 3)
        assert all((item.margins[name] > 0) == item.correct[name] for item in results.items)
    assert [item.id for item in results.items] == ["0", "1", "2"]
    assert sum(item.margins["group_match"] > 0 for item in results.items) == pytest.approx(
        3 * results.metrics["group_match"].value
    )
    assert results.provenance["data_hash"]
    assert sorted(path.name for path in out.iterdir()) == ["cache", "report.html", "results.json"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["winoground", "%", "low", "high", "chance", "%", "items", "ties", "d'"]
    rows = [line.split() for line in printed[1:5]]
    assert [(row[0], row[4]) for row in rows] == [
        ("text_score", "25.00"),
        ("image_score", "25.00"),
        ("group_score", "16.67"),
        ("group_match", "50.00"),
    ]
    d_prime = results.metrics["group_match"].d_prime
    assert rows[3][-1] == f"{d_prime:.2f}"
    assert printed[-1] == str(out / "report.html")


def shares(metrics: dict[str, Metric]) -> dict[str, Metric]:
    return {name: replace(metric, d_prime=None) for name, metric in metrics.items()}


def test_the_same_run_again_gives_the_same_file(checkpoint: Path, winoground: Path, tmp_path: Path) -> None:
    out = tmp_path / "result"
    assert evaluate(checkpoint, winoground, "--out", str(out)) == 0
    before = (out / "results.json").read_bytes()
    assert evaluate(checkpoint, winoground, "--out", str(out)) == 0
    assert (out / "results.json").read_bytes() == before
    # A run that keeps nothing finds the same figures.
    assert evaluate(checkpoint, winoground, "--out", str(tmp_path / "other"), "--batch-size", "1") == 0
    other = read_results(tmp_path / "other/results.json")
    metrics = read_results(out / "results.json").metrics
    assert shares(other.metrics) == shares(metrics)
    # Rounding in a batch of another size moves the features' last digits, and with them d'.
    assert other.metrics["group_match"].d_prime == pytest.approx(metrics["group_match"].d_prime, rel=1e-4)


def test_a_baseline_is_measured_and_compared(
    checkpoint: Path, winoground: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_tiny_clip(tmp_path / "other", seed=1)
    out = tmp_path / "result"
    options = ("--baseline", f"local-dir:{other}", "--out", str(out), "--json")
    assert evaluate(checkpoint, winoground, *options) == 0
    answer = json.loads(capsys.readouterr().out)
    baseline, results = read_results(out / "baseline.json"), read_results(out / "results.json")
    assert answer["baseline"]["provenance"]["model"] == baseline.provenance["model"] == f"local-dir:{other}"
    found = answer["comparison"]["outcomes"]["text"]
    assert found["difference"] == pytest.approx(
        results.metrics["text_score"].value - baseline.metrics["text_score"].value
    )
    assert evaluate(checkpoint, winoground, *options[:2]) == 0
    assert "p better" in capsys.readouterr().out
    assert evaluate(checkpoint, winoground, "--out", str(out)) == 0
    left = sorted(path.name for path in out.iterdir())
    assert left == ["cache", "report.html", "results.json"]  # no comparison of another run


def test_the_served_precision_stands_beside(
    checkpoint: Path, winoground: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SDS_CLIP_PRECISION", "bfloat16")
    assert evaluate(checkpoint, winoground, "--also-served-precision", "--json") == 0
    served = json.loads(capsys.readouterr().out)["provenance"]["served_precision"]
    assert served["precision"] == "bfloat16"
    assert served["metrics"].keys() == {"text_score", "image_score", "group_score", "group_match"}
    assert evaluate(checkpoint, winoground, "--also-served-precision") == 0
    assert capsys.readouterr().out.splitlines()[0].split()[-2:] == ["bfloat16", "%"]


def test_the_score_s_error_has_one_default_in_training_and_in_every_evaluation() -> None:
    from sds_clip.app.schemas.evaluate import EvaluateSpec
    from sds_clip.models.evaluation.teacher_scorer import TeacherScorer
    from sds_clip.models.teacher import diffusion_score
    from sds_clip.models.training.config import FinetuneConfig

    asked = ["evaluate", "winoground", "--data", "set", "--scorer", "diffusion", "--teacher", "demo"]
    functions = (TeacherScorer, diffusion_score.image_errors, diffusion_score.denoising_errors)
    defaults = [parsed(asked)["score_error"]]
    defaults += [kind.model_fields["score_error"].default for kind in (EvaluateSpec, FinetuneConfig)]
    defaults += [inspect.signature(function).parameters["error_of"].default for function in functions]
    assert defaults == ["velocity"] * 6


def test_a_teacher_scores_too(
    winoground: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--scorer", "diffusion", "--teacher", f"local-dir:{teacher}", "--draws", "2", "--seed", "3"]
    options += ["--score-error", "epsilon", "--cache", str(tmp_path / "cache")]
    assert main(["evaluate", "winoground", "--data", str(winoground), *options, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["provenance"]["scorer"] == "diffusion"
    assert (answer["provenance"]["draws"], answer["provenance"]["seed"]) == (2, 3)
    assert answer["provenance"]["score_error"] == "epsilon"
    assert answer["metrics"]["image_score"]["ties"] == 1
    assert main(["evaluate", "winoground", "--data", str(winoground), *options]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split()[-3:] == ["raw", "-d", "%"]
    raw = answer["provenance"]["raw_score"]
    assert [row.split()[-1] for row in rows[:4]] == [f"{100 * raw[name]:.2f}" for name in answer["metrics"]]


def test_a_run_that_was_killed_is_continued_by_the_same_command(
    winoground: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sds_clip.models.evaluation import teacher_scorer

    options = ["--scorer", "diffusion", "--teacher", f"local-dir:{teacher}", "--draws", "2"]
    computed: list[int] = []
    image_errors = teacher_scorer.image_errors

    def counted(*args: Any, **settings: Any) -> Any:
        found = image_errors(*args, **settings)
        computed.append(found.numel())
        return found

    def command(out: Path) -> list[str]:
        return ["evaluate", "winoground", "--data", str(winoground), *options, "--out", str(out)]

    monkeypatch.setattr(teacher_scorer, "image_errors", counted)
    straight, out = tmp_path / "straight", tmp_path / "out"
    assert main(command(straight)) == 0
    all_of_it = sum(computed)
    # It dies once it has kept the first scores.
    point = ("sds_clip.models.evaluation.kept", "KeptErrors.add", "after", "1")
    killed = subprocess.run(
        [sys.executable, "-m", "tests.app.backup.killed", *point, *command(out)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},  # scores are kept by it
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "results.json").exists()
    computed.clear()
    assert main(command(out)) == 0
    assert 0 < sum(computed) < all_of_it
    metrics = [json.loads((folder / "results.json").read_text())["metrics"] for folder in (straight, out)]
    assert metrics[0] == metrics[1]


def test_every_benchmark_runs_by_name(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a/dog/1.png", "a/cat/1.png", "images/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((20, 20), 50).convert("RGB").save(tmp_path / name)
    box = {"image_path": "1.png", "bbox_x": 0, "bbox_y": 0, "bbox_w": 9, "bbox_h": 9}
    said = {"true_caption": "a dog on a cat", "false_caption": "a cat on a dog"}
    karpathy = [{"image": "1.png", "caption": ["a dog on a cat"]}]
    pp = {"id": 0, "filename": "1.png", "caption": "a", "caption2": "b", "negative_caption": "c"}
    files: dict[str, Any] = {
        "vg-relation": [box | said | {"relation_name": "behind"}],
        "vg-attribution": [box | said | {"attributes": ["red", "old"]}],
        "coco-order": karpathy,
        "flickr-order": karpathy,
        "sugarcrepe-pp": [pp],
        "retrieval": karpathy,
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    data = {name: [str(tmp_path / f"{name}.json"), "--images", str(tmp_path / "images")] for name in files}
    for name, place in (data | {"zero-shot": [str(tmp_path / "a")]}).items():
        options = ["--model", f"local-dir:{checkpoint}", "--json", "--cache", str(tmp_path / "cache")]
        assert main(["evaluate", name, *options, "--data", *place]) == 0, name
        assert json.loads(capsys.readouterr().out)["benchmark"] == name


@pytest.mark.parametrize("name", ["zero-shot", "retrieval"])
def test_the_diffusion_score_is_not_offered_where_it_cannot_be_afforded(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(["evaluate", name, "--help"]) == 0
    assert "diffusion" not in capsys.readouterr().out.split("Examples:")[0]
    assert main(["evaluate", name, "--data", "none", "--scorer", "diffusion", "--teacher", "none"]) == 2
    assert "--scorer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("benchmark", "save", "chances"),
    [
        (
            "colorswap",
            save_colorswap,
            {"text_score": 1 / 4, "image_score": 1 / 4, "group_score": 1 / 6, "group_match": 1 / 2},
        ),
        (
            "mmvp_vlm",
            save_mmvp,
            {"text_score": 1 / 4, "image_score": 1 / 4, "group_score": 1 / 6, "group_match": 1 / 2},
        ),
        (
            "whats-up",
            save_controlled,
            {
                "macro_acc": 1 / 4,
                "acc": 1 / 4,
                "pair_acc": 1 / 16,
                "set_acc": 1 / 256,
                "pair_match": 1 / 2,
                "set_match": 1 / 24,
            },
        ),
        ("coco-spatial", save_coco_spatial, {"macro_acc": 1 / 2, "acc": 1 / 2}),
        ("gqa-spatial", save_gqa_spatial, {"macro_acc": 1 / 2, "acc": 1 / 2}),
        (
            "half-truths",
            save_half_truths,
            {"macro_acc": 1 / 2, "acc": 1 / 2, "correct_ordering_rate": 1 / 6},
        ),
    ],
)
def test_relations_and_attributes_are_measured_and_compared(
    benchmark: str,
    save: Callable[[Path], Path],
    chances: dict[str, float],
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = f"local-dir:{checkpoint}"
    data, out = save(tmp_path / "data"), tmp_path / "out"
    options = ["--data", str(data), "--model", model, "--baseline", model, "--out", str(out)]
    assert main(["evaluate", benchmark, *options]) == 0
    results = read_results(out / "results.json")
    assert {name: metric.chance for name, metric in results.metrics.items()} == chances
    assert results.provenance["items_used"] == results.provenance["items"]
    assert results.primary in capsys.readouterr().out
    comparison = json.loads((out / "comparison.json").read_text())
    assert {outcome["difference"] for outcome in comparison["outcomes"].values()} == {0}
    assert results.primary in (out / "report.html").read_text()
