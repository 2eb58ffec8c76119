from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models.diffusion_score import DiffusionScorer, draws
from models.evaluation.benchmark import run_benchmark
from models.evaluation.checked import Problems, look_at_images
from models.evaluation.errors import EvaluationError
from models.evaluation.items import Item
from models.evaluation.results import ImageRegion
from models.evaluation.teacher_scorer import TeacherScorer
from models.evaluation.winoground import winoground_metrics
from models.evaluation.winoground_benchmark import Winoground
from models.teacher.load import load_teacher
from models.teacher.teacher import Teacher
from tests.teachers import save_sd_teacher


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder = save_sd_teacher(tmp_path_factory.mktemp("teachers") / "sd")
    return load_teacher(f"local-dir:{folder}", device="cpu", precision="float32", vae=True)


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    found = []
    for number in range(3):
        files = []
        for side in (0, 1):
            pixels = np.random.default_rng([number, side]).integers(0, 256, (4, 4, 3), dtype=np.uint8)
            files.append(tmp_path / f"{number}_{side}.png")
            Image.fromarray(pixels).resize((64, 64)).save(files[-1])
        captions = (f"red {number} on blue", f"blue {number} on red")
        found.append(Item(id=str(number), images=tuple(map(ImageRegion, files)), captions=captions))
    return tuple(found)


def test_results_are_the_diffusion_scores_own(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path
) -> None:
    drawn = draws(3, teacher.latent_shape, teacher.timesteps, seed=5)
    plain = DiffusionScorer(teacher, drawn)
    expected = torch.stack(
        [plain.score([one.path for one in item.images], item.captions).corrected for item in items]
    )
    scorer = TeacherScorer(teacher, tmp_path / "kept", count=3, seed=5)
    results = run_benchmark(Winoground("winoground", items, {}), scorer)
    assert torch.equal(torch.stack(list(scorer.scores(items))), expected)
    metrics = winoground_metrics(expected)
    assert results.metrics["text_score"].value == metrics.text_score
    assert results.metrics["image_score"].value == metrics.image_score
    assert (results.provenance["draws"], results.provenance["seed"]) == (3, 5)


def test_a_run_goes_on_where_it_was(teacher: Teacher, items: tuple[Item, ...], tmp_path: Path) -> None:
    benchmark = Winoground("winoground", items, {})
    first = run_benchmark(benchmark, TeacherScorer(teacher, tmp_path / "kept", count=2))
    (file,) = (tmp_path / "kept").iterdir()
    lines = file.read_text().split("\n")
    # What a kill leaves: one line whole, the second cut off.
    file.write_text("\n".join([lines[0], lines[1][:20]]))
    scorer = TeacherScorer(teacher, tmp_path / "kept", count=2)
    assert run_benchmark(benchmark, scorer) == first
    assert scorer.scored == 2
    assert file.read_text().split("\n")[0] == lines[0]
    assert sorted(file.read_text().split("\n")) == sorted(lines)


def test_other_draws_share_nothing(teacher: Teacher, items: tuple[Item, ...], tmp_path: Path) -> None:
    benchmark = Winoground("winoground", items, {})
    run_benchmark(benchmark, TeacherScorer(teacher, tmp_path / "kept", count=2))
    other = TeacherScorer(teacher, tmp_path / "kept", count=2, seed=1)
    run_benchmark(benchmark, other)
    assert other.scored == 3


def test_an_image_that_cannot_be_read_is_found_before_anything_is_scored(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path
) -> None:
    problems = Problems(len(items))
    images = look_at_images(items, problems)
    items[2].images[0].path.unlink()
    scorer = TeacherScorer(teacher, tmp_path / "kept", count=2)
    scorer.prepare(items, images, problems)
    with pytest.raises(EvaluationError, match="1 of 3 items"):
        problems.check()
    assert scorer.scored == 0
