"""The figures are CLIP_benchmark's own, computed by its code on the same data; ties alone may make a difference.

Its Winoground and ImageFolder loaders need what is not there (a hub, torchvision's folders), so its metrics are called
on loaders made here. `pip install --no-deps clip-benchmark==1.6.1`, and scikit-learn.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.items import open_region
from sds_clip.models.evaluation.results import Metric, Results
from sds_clip.models.evaluation.retrieval import retrieval_benchmark
from sds_clip.models.evaluation.scorers import ClipScorer
from sds_clip.models.evaluation.sugarcrepe import sugarcrepe
from sds_clip.models.evaluation.winoground import winoground_benchmark
from sds_clip.models.evaluation.zero_shot import zero_shot_benchmark

if "CI" not in os.environ:
    pytest.importorskip("clip_benchmark", reason="needs pip install --no-deps clip-benchmark==1.6.1")
    pytest.importorskip("sklearn", reason="clip-benchmark needs scikit-learn")

from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval

ITEMS, PICTURES = 200, 25
SHAPES = ["circle", "square", "ring", "star", "moon", "heart", "cross", "dome"]
COLOURS = ["red", "blue", "green", "pink", "black", "white", "yellow", "grey"]


class EncodesOnce(nn.Module):
    """A network, as both call it, that computes every image and text once: they repeat, as real ones do."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self._network = network
        self._kept: dict[bytes, Tensor] = {}

    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        return self._rows(pixels, self._network.encode_image, normalize)

    def encode_text(self, tokens: Tensor, normalize: bool = False) -> Tensor:
        return self._rows(tokens, self._network.encode_text, normalize)

    def _rows(self, values: Tensor, encode: Callable[..., Tensor], normalize: bool) -> Tensor:
        assert not normalize  # left to both, as open_clip has it by default
        keys = [row.numpy().tobytes() for row in values]
        new = {key: row for row, key in enumerate(keys) if key not in self._kept}
        if new:
            self._kept |= zip(new, encode(values[list(new.values())]), strict=True)
        return torch.stack([self._kept[key] for key in keys])


@dataclass
class Model:
    """A model, and the features that our evaluation keeps of it."""

    clip: Clip
    kept: Path


@pytest.fixture(scope="module", params=[pytest.param("ViT-B-32", marks=pytest.mark.long), "demo"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    reference = "demo"
    if request.param == "ViT-B-32":
        reference = f"local-dir:{request.getfixturevalue('vit_b_32_folder')}"
    clip = load_clip(reference, device="cpu", precision="float32")
    return Model(replace(clip, network=EncodesOnce(clip.network)), tmp_path_factory.mktemp("kept"))


def caption(number: int) -> str:
    """One of `ITEMS` captions, all different."""
    number %= ITEMS
    one, two = COLOURS[number % 8], COLOURS[(number + 1 + number // 64) % 8]
    return f"a {one} {SHAPES[number // 8 % 8]} to the left of a {two} {SHAPES[(number // 8 + number) % 8]}"


def save_picture(file: Path, number: int) -> None:
    """One of `PICTURES` pictures, under any name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number % PICTURES).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((40, 36)).save(file)


def run(model: Model, benchmark: Benchmark) -> Results:
    with ClipScorer(model.clip, model.kept) as scorer:
        return run_benchmark(benchmark, scorer)


def loaded(model: Model, benchmark: Benchmark, batch: int = 16) -> Iterator[tuple[Tensor, Any]]:
    """Batches as CLIP_benchmark's loaders give them: images [b, i, 3, h, w], and each item's captions."""
    for start in range(0, len(benchmark.items), batch):
        items = benchmark.items[start : start + batch]
        images = [
            torch.stack([model.clip.preprocess(open_region(one)) for one in item.images]) for item in items
        ]
        yield torch.stack(images), [list(item.captions) for item in items]


def equal_but_for_ties(metric: Metric, theirs: float) -> bool:
    """Theirs takes the first of equal scores, ours takes a tie for wrong."""
    return metric.value - 1e-6 <= theirs <= metric.value + metric.ties / metric.n + 1e-6


def test_winoground(model: Model, tmp_path: Path) -> None:
    lines = []
    for number in range(ITEMS):
        for side in (0, 1):
            save_picture(
                tmp_path / f"images/ex_{number}_img_{side}.png", number + side * (1 + number // PICTURES)
            )
        names = {f"image_{side}": f"ex_{number}_img_{side}" for side in (0, 1)}
        texts = {f"caption_{side}": caption(number + 7 * side) for side in (0, 1)}
        lines.append(json.dumps({"id": number} | names | texts))
    (tmp_path / "examples.jsonl").write_text("\n".join(lines))
    benchmark = winoground_benchmark(tmp_path)

    ours = run(model, benchmark)
    theirs = image_caption_selection.evaluate(
        model.clip.network, list(loaded(model, benchmark)), model.clip.tokenizer, "cpu", amp=False
    )

    pairs = {"text_score": "text_acc", "image_score": "image_acc", "group_score": "acc"}
    for name, key in pairs.items():
        assert ours.metrics[name].n == ITEMS
        assert equal_but_for_ties(ours.metrics[name], theirs[key])
    assert ours.metrics["group_score"].ties == 0
    assert 0 < ours.metrics["text_score"].value < 1


def test_sugarcrepe(model: Model, tmp_path: Path) -> None:
    for number in range(PICTURES):
        save_picture(tmp_path / f"val2017/{number}.png", number)
    counts = {"swap_obj": ITEMS, "add_att": 20}
    for name, count in counts.items():
        content = {
            str(2 * number): {
                "filename": f"{number % PICTURES}.png",
                "caption": caption(number),
                "negative_caption": caption(number + (3 if name == "swap_obj" else 11)),
            }
            for number in range(count)
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(content))

    results = run(model, sugarcrepe(tmp_path))

    for name, count in counts.items():
        one = sugarcrepe(tmp_path / f"{name}.json")
        theirs = image_caption_selection.evaluate(
            model.clip.network, list(loaded(model, one)), model.clip.tokenizer, "cpu", amp=False
        )
        assert results.by_tag[name]["acc"].n == count
        assert equal_but_for_ties(results.by_tag[name]["acc"], theirs["acc"])
        assert results.by_tag[name]["acc"].ties == 0
        assert 0 < results.by_tag[name]["acc"].value < 1


def test_retrieval(model: Model, tmp_path: Path) -> None:
    """Images of seven to nine captions; an image that is there twice would be a tie of its own making."""
    content: dict[str, Any] = {"images": [], "annotations": []}
    for number in range(PICTURES):
        save_picture(tmp_path / f"images/{number}.png", number)
        content["images"].append({"id": number, "file_name": f"{number}.png"})
    owners = [number % PICTURES for number in range(ITEMS)]
    owners[0], owners[1] = 2, 3
    for number, owner in enumerate(owners):
        content["annotations"].append({"image_id": owner, "caption": caption(number)})
    (tmp_path / "captions.json").write_text(json.dumps(content))
    benchmark = retrieval_benchmark(tmp_path / "captions.json", tmp_path / "images")
    assert sum(len(item.captions) for item in benchmark.items) == ITEMS

    ours = run(model, benchmark)
    batches = [(images[:, 0], texts) for images, texts in loaded(model, benchmark)]
    theirs = zeroshot_retrieval.evaluate(
        model.clip.network, batches, model.clip.tokenizer, "cpu", amp=False, recall_k_list=[1, 5, 10]
    )

    assert ours.metrics.keys() == theirs.keys()
    for name, metric in ours.metrics.items():
        assert equal_but_for_ties(metric, theirs[name]), name
        assert metric.ties == 0
    assert 0 < ours.metrics["image_retrieval_recall@10"].value < 1


def test_zero_shot(model: Model, tmp_path: Path) -> None:
    names = [f"{colour} {shape}" for colour in COLOURS[:3] for shape in SHAPES[:4]]
    for number in range(ITEMS):
        save_picture(tmp_path / f"set/{names[number % len(names)].replace(' ', '_')}/{number}.png", number)
    (tmp_path / "templates.txt").write_text("a photo of a {c}.\na bad photo of the {c}.\n")
    benchmark = zero_shot_benchmark(tmp_path / "set", templates=str(tmp_path / "templates.txt"))

    ours = run(model, benchmark)
    images = [images[:, 0] for images, _ in loaded(model, benchmark)]
    targets = torch.tensor([item.target for item in benchmark.items]).split(16)
    weights = zeroshot_classification.zero_shot_classifier(
        model.clip.network,
        model.clip.tokenizer,
        list(benchmark.labels),
        list(benchmark.templates),
        "cpu",
        amp=False,
    )
    logits, _ = zeroshot_classification.run_classification(
        model.clip.network, weights, list(zip(images, targets, strict=True)), "cpu", amp=False
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
    assert ours.metrics["acc1"].n == ITEMS
    for name, metric in ours.metrics.items():
        assert metric.value == pytest.approx(theirs[name], abs=1e-6)
        assert metric.ties == 0
    assert 0 < ours.metrics["acc5"].value < 1


def test_captions_and_pictures_are_all_different() -> None:
    assert len({caption(number) for number in range(ITEMS)}) == ITEMS
