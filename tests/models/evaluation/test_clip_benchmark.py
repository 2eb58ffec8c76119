"""The figures are CLIP_benchmark's own, computed by its code on the same data; ties alone may make a difference.

Its Winoground and ImageFolder loaders need what is not there (a hub, torchvision's folders), so its metrics are called
on loaders made here. `pip install --no-deps clip-benchmark==1.6.1`, and scikit-learn.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from models.checkpoints import load_clip
from models.clip import Clip
from models.evaluation.benchmark import Benchmark, run_benchmark
from models.evaluation.items import open_region
from models.evaluation.results import Metric, Results
from models.evaluation.retrieval_benchmark import retrieval_benchmark
from models.evaluation.scorers import ClipScorer
from models.evaluation.sugarcrepe import sugarcrepe
from models.evaluation.winoground_benchmark import winoground_benchmark
from models.evaluation.zero_shot_benchmark import zero_shot_benchmark

if "CI" not in os.environ:
    pytest.importorskip("clip_benchmark", reason="needs pip install --no-deps clip-benchmark==1.6.1")
    pytest.importorskip("sklearn", reason="clip-benchmark needs scikit-learn")

from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval

ITEMS = 200
SHAPES = ["circle", "square", "ring", "star", "moon", "heart", "cross", "dome"]
COLOURS = ["red", "blue", "green", "pink", "black", "white", "yellow", "grey"]


@pytest.fixture(scope="module", params=["random", "demo"])
def clip(request: pytest.FixtureRequest, tiny_folder: Path) -> Clip:
    reference = "demo" if request.param == "demo" else f"local-dir:{tiny_folder}"
    return load_clip(reference, device="cpu", precision="float32")


def caption(number: int, place: int = 0) -> str:
    rng = np.random.default_rng([number, place])
    (one, two), (this, that) = rng.choice(COLOURS, 2, replace=False), rng.choice(SHAPES, 2, replace=False)
    return f"a {one} {this} to the left of a {two} {that}"


def save_picture(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((40, 36)).save(file)


def run(clip: Clip, benchmark: Benchmark, folder: Path) -> Results:
    with ClipScorer(clip, folder) as scorer:
        return run_benchmark(benchmark, scorer)


def loaded(clip: Clip, benchmark: Benchmark, batch: int = 16) -> Iterator[tuple[torch.Tensor, Any]]:
    """Batches as CLIP_benchmark's loaders give them: images [b, i, 3, h, w], and each item's captions."""
    for start in range(0, len(benchmark.items), batch):
        items = benchmark.items[start : start + batch]
        images = [torch.stack([clip.preprocess(open_region(one)) for one in item.images]) for item in items]
        yield torch.stack(images), [list(item.captions) for item in items]


def equal_but_for_ties(metric: Metric, theirs: float) -> bool:
    """Theirs takes the first of equal scores, ours takes a tie for wrong."""
    return metric.value - 1e-6 <= theirs <= metric.value + metric.ties / metric.n + 1e-6


def test_winoground(clip: Clip, tmp_path: Path) -> None:
    lines = []
    for number in range(ITEMS):
        for side in (0, 1):
            save_picture(tmp_path / f"images/ex_{number}_img_{side}.png", 2 * number + side)
        names = {f"image_{side}": f"ex_{number}_img_{side}" for side in (0, 1)}
        texts = {f"caption_{side}": caption(number, side) for side in (0, 1)}
        lines.append(json.dumps({"id": number} | names | texts))
    (tmp_path / "examples.jsonl").write_text("\n".join(lines))
    benchmark = winoground_benchmark(tmp_path)

    ours = run(clip, benchmark, tmp_path / "kept")
    theirs = image_caption_selection.evaluate(
        clip.network, list(loaded(clip, benchmark)), clip.tokenizer, "cpu", amp=False
    )

    pairs = {"text_score": "text_acc", "image_score": "image_acc", "group_score": "acc"}
    for name, key in pairs.items():
        assert equal_but_for_ties(ours.metrics[name], theirs[key])
    assert ours.metrics["group_score"].ties == 0
    assert 0 < ours.metrics["text_score"].value < 1


def test_sugarcrepe(clip: Clip, tmp_path: Path) -> None:
    for number in range(80):
        save_picture(tmp_path / f"val2017/{number}.jpg", number)
    counts = {"swap_obj": ITEMS, "add_att": 20}
    for name, count in counts.items():
        content = {
            str(2 * number): {
                "filename": f"{number % 80}.jpg",
                "caption": caption(number),
                "negative_caption": caption(number, 1 if name == "swap_obj" else 2),
            }
            for number in range(count)
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    results = run(clip, sugarcrepe(tmp_path), tmp_path / "kept")

    for name in counts:
        one = sugarcrepe(tmp_path / f"{name}.json")
        theirs = image_caption_selection.evaluate(
            clip.network, list(loaded(clip, one)), clip.tokenizer, "cpu", amp=False
        )
        assert equal_but_for_ties(results.by_tag[name]["acc"], theirs["acc"])
        assert results.by_tag[name]["acc"].ties == 0


def test_retrieval(clip: Clip, tmp_path: Path) -> None:
    content: dict[str, Any] = {"images": [], "annotations": []}
    for number in range(ITEMS):
        save_picture(tmp_path / f"images/{number}.png", number)
        content["images"].append({"id": number, "file_name": f"{number}.png"})
        for place in range(1 + number % 3):
            content["annotations"].append({"image_id": number, "caption": caption(number, place)})
    (tmp_path / "captions.json").write_text(json.dumps(content))
    benchmark = retrieval_benchmark(tmp_path / "captions.json", tmp_path / "images")

    ours = run(clip, benchmark, tmp_path / "kept")
    batches = [(images[:, 0], texts) for images, texts in loaded(clip, benchmark)]
    theirs = zeroshot_retrieval.evaluate(
        clip.network, batches, clip.tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )

    assert ours.metrics.keys() == theirs.keys()
    for name, metric in ours.metrics.items():
        assert equal_but_for_ties(metric, theirs[name]), name
    assert 0 < ours.metrics["image_retrieval_recall@10"].value < 1


def test_zero_shot(clip: Clip, tmp_path: Path) -> None:
    names = [f"{colour} {shape}" for colour in COLOURS[:3] for shape in SHAPES[:4]]
    for number in range(ITEMS):
        save_picture(tmp_path / f"set/{names[number % len(names)].replace(' ', '_')}/{number}.png", number)
    (tmp_path / "templates.txt").write_text("a photo of a {c}.\na bad photo of the {c}.\n")
    benchmark = zero_shot_benchmark(tmp_path / "set", templates=str(tmp_path / "templates.txt"))

    ours = run(clip, benchmark, tmp_path / "kept")
    images = [images[:, 0] for images, _ in loaded(clip, benchmark)]
    targets = torch.tensor([item.target for item in benchmark.items]).split(16)
    weights = zeroshot_classification.zero_shot_classifier(
        clip.network, clip.tokenizer, list(benchmark.labels), list(benchmark.templates), "cpu", amp=False
    )
    logits, _ = zeroshot_classification.run_classification(
        clip.network, weights, list(zip(images, targets, strict=True)), "cpu", amp=False
    )
    # What its `evaluate` does with these; its `accuracy` itself stumbles over numpy 2.4.
    target = torch.cat(targets)
    found = logits.topk(5, 1, True, True)[1] == target[:, None]
    theirs = {
        "acc1": float(found[:, 0].double().mean()),
        "acc5": float(found.any(dim=1).double().mean()),
        "mean_per_class_recall": zeroshot_classification.balanced_accuracy_score(
            target, logits.argmax(axis=1)
        ),
    }

    assert ours.metrics.keys() == theirs.keys()
    for name, metric in ours.metrics.items():
        assert metric.value == pytest.approx(theirs[name], abs=1e-6)
        assert metric.ties == 0
    assert 0 < ours.metrics["acc5"].value < 1
