"""The demo world's sets go through the same harness as anybody's, with the figures of the demo's own table."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from sds_clip.demo.folders import write_image_folder, write_retrieval, write_zero_shot
from sds_clip.demo.sets import CLASS_TEMPLATES, classification_set, retrieval_set
from sds_clip.demo.training_set import DemoPairs
from sds_clip.demo.world import Split
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.encode import encode_images, encode_texts
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.zero_shot import class_weights, prompts
from sds_clip.models.data.open import open_pairs
from sds_clip.models.evaluation.benchmark import Benchmark, run_benchmark
from sds_clip.models.evaluation.readers import read_benchmark
from sds_clip.models.evaluation.results import Results
from sds_clip.models.evaluation.scorers import ClipScorer
from tests.plain_metrics import accuracies, recalls

COUNT = 128


@pytest.fixture(scope="module")
def clip() -> Clip:
    return load_clip("demo", device="cpu", precision="float32")


def run(clip: Clip, benchmark: Benchmark, folder: Path) -> Results:
    with ClipScorer(clip, folder) as scorer:
        return run_benchmark(benchmark, scorer)


def test_zero_shot(clip: Clip, tmp_path: Path) -> None:
    content = classification_set(Split.HELD_OUT, COUNT)
    write_zero_shot(tmp_path / "set", content)
    results = run(clip, read_benchmark("zero-shot", tmp_path / "set", work=tmp_path), tmp_path / "kept")
    images = encode_images(clip, [Image.fromarray(pixels) for pixels in content.images])
    weights = class_weights(
        encode_texts(clip, prompts(content.labels, CLASS_TEMPLATES)), len(CLASS_TEMPLATES)
    )
    expected = accuracies(images @ weights.T, torch.tensor(content.targets))
    assert {name: metric.value for name, metric in results.metrics.items()} == pytest.approx(expected)


def test_retrieval(clip: Clip, tmp_path: Path) -> None:
    content = retrieval_set(Split.HELD_OUT, COUNT)
    write_retrieval(tmp_path / "set", content)
    benchmark = read_benchmark("retrieval", tmp_path / "set/captions.json", work=tmp_path)
    results = run(clip, benchmark, tmp_path / "kept")
    images = encode_images(clip, [Image.fromarray(pixels) for pixels in content.images])
    expected = recalls(images, encode_texts(clip, content.captions), torch.arange(COUNT))
    assert {name: metric.value for name, metric in results.metrics.items()} == expected


def test_an_image_folder_has_the_pairs_with_their_candidates(tmp_path: Path) -> None:
    pairs = DemoPairs(20, captions="tags")
    write_image_folder(tmp_path / "set", pairs)
    read = open_pairs(tmp_path / "set")
    for index in range(20):
        found, written = read.sample(index), pairs.sample(index)
        assert (found.captions, found.negatives) == (written.captions, written.negatives)
        assert read.image(index).tobytes() == pairs.image(index).tobytes()
    assert max(len(read.sample(index).negatives[0]) for index in range(20)) == 8
