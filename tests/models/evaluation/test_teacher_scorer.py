from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sds_clip.models.choices import SCORE_ERROR, ErrorOf
from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation import teacher_scorer
from sds_clip.models.evaluation.benchmark import run_benchmark
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.image_check import Problems, look_at_images
from sds_clip.models.evaluation.items import Item
from sds_clip.models.evaluation.results import Results
from sds_clip.models.evaluation.teacher_scorer import TeacherScorer, run_teacher
from sds_clip.models.evaluation.winoground import Winoground
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.teacher.diffusion_score import draws, image_errors
from sds_clip.models.teacher.load import load_teacher
from sds_clip.models.teacher.teacher import UNCONDITIONAL, Teacher
from tests.plain_metrics import winoground_shares
from tests.teachers import save_sd_teacher


@dataclass
class Calls:
    """What went through the teacher: noised latents and images."""

    unet: int = 0
    vae: int = 0


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    folder = save_sd_teacher(tmp_path_factory.mktemp("teachers") / "sd")
    return load_teacher(f"local-dir:{folder}", device="cpu", precision="float32", vae=True)


@pytest.fixture
def calls(teacher: Teacher) -> Iterator[Calls]:
    found = Calls()

    def unet(_: object, inputs: tuple[Tensor, ...]) -> None:
        found.unet += len(inputs[0])

    def vae(_: object, inputs: tuple[Tensor, ...]) -> None:
        found.vae += len(inputs[0])

    assert teacher.vae is not None
    hooks = [
        teacher.denoiser.register_forward_pre_hook(unet),
        teacher.vae.encoder.register_forward_pre_hook(vae),
    ]
    yield found
    for hook in hooks:
        hook.remove()


def picture(path: Path, *seed: int) -> ImageRef:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64)).save(path)
    return ImageRef(path)


@pytest.fixture
def items(tmp_path: Path) -> tuple[Item, ...]:
    return tuple(
        Item(
            id=str(number),
            images=(
                picture(tmp_path / f"{number}_0.png", number, 0),
                picture(tmp_path / f"{number}_1.png", number, 1),
            ),
            captions=(f"red {number} on blue", f"blue {number} on red"),
        )
        for number in range(3)
    )


@pytest.fixture
def repeating(tmp_path: Path) -> tuple[Item, ...]:
    """Two images in five items, once as a copy of the file, and with captions that come twice."""
    first, copied = picture(tmp_path / "first.png", 0), picture(tmp_path / "copied.png", 0)
    second = picture(tmp_path / "second.png", 1)
    return (
        Item("0", (first,), ("a dog", "a cat")),
        Item("1", (second,), ("a dog", "a hat")),
        Item("2", (first,), ("a dog", "a cow")),
        Item("3", (copied,), ("a pig", "a cat")),
        Item("4", (second,), ("a dog", "a hat")),
    )


@dataclass(frozen=True)
class Scores:
    """Of one item `[caption, image]`: -d(x, c), and d(x, no caption) - d(x, c)."""

    raw: Tensor
    corrected: Tensor


def unshared(
    teacher: Teacher, items: tuple[Item, ...], count: int, seed: int = 0, error_of: ErrorOf = SCORE_ERROR
) -> list[Scores]:
    """Every item by itself."""
    drawn = draws(count, teacher.latent_shape, teacher.timesteps, seed=seed)
    found = []
    for item in items:
        pictures = [Image.open(image.path).convert("RGB") for image in item.images]
        d = image_errors(teacher, pictures, [*item.captions, UNCONDITIONAL], drawn, error_of=error_of)
        found.append(Scores(-d[:-1], d[-1] - d[:-1]))
    return found


def prepared(scorer: TeacherScorer, items: tuple[Item, ...]) -> TeacherScorer:
    problems = Problems(len(items))
    scorer.prepare(items, look_at_images(items, problems), problems)
    return scorer


def test_results_are_the_diffusion_scores_own(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path
) -> None:
    expected = torch.stack([scores.corrected for scores in unshared(teacher, items, 3, seed=5)])
    scorer = TeacherScorer(teacher, tmp_path / "kept", count=3, seed=5)
    results = run_benchmark(Winoground("winoground", items, {}), scorer)
    assert torch.equal(torch.stack(list(scorer.scores(items))), expected)
    found = {name: (metric.value, metric.ties) for name, metric in results.metrics.items()}
    assert found == winoground_shares(expected)
    assert (results.provenance["draws"], results.provenance["seed"]) == (3, 5)


def test_a_pair_that_repeats_is_computed_once(
    teacher: Teacher, repeating: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    scorer = prepared(TeacherScorer(teacher, tmp_path / "kept", count=2), repeating)
    found = list(scorer.scores(repeating))
    # The first image under a dog, a cat, a cow, a pig and no caption; the second under a dog, a hat and none.
    assert (calls.unet, calls.vae) == (2 * (5 + 3), 2)
    expected = [scores.corrected for scores in unshared(teacher, repeating, 2)]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_more_captions_than_are_embedded_at_once_are_all_scored(
    teacher: Teacher, tmp_path: Path, calls: Calls
) -> None:
    captions = tuple(f"number {number}" for number in range(70))
    items = (Item("0", (picture(tmp_path / "one.png", 0),), captions),)
    (found,) = prepared(TeacherScorer(teacher, tmp_path / "kept", count=1), items).scores(items)
    assert calls.unet == 71
    (expected,) = unshared(teacher, items, 1)
    torch.testing.assert_close(found, expected.corrected, rtol=0, atol=1e-6)


def test_other_items_of_known_images_cost_their_own_captions_alone(
    teacher: Teacher, repeating: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    for part in (repeating[:2], repeating[2:]):
        scorer = prepared(TeacherScorer(teacher, tmp_path / "kept", count=2), part)
        before = calls.unet
        list(scorer.scores(part))
    assert calls.unet - before == 2 * 2


def test_a_run_goes_on_where_it_was(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    benchmark = Winoground("winoground", items, {})
    first = run_benchmark(benchmark, TeacherScorer(teacher, tmp_path / "kept", count=2))
    assert calls.unet == 3 * 2 * 3 * 2
    begun = prepared(TeacherScorer(teacher, tmp_path / "begun", count=2), items).scores(items)
    next(begun)
    next(begun)
    before = calls.unet
    assert run_benchmark(benchmark, TeacherScorer(teacher, tmp_path / "begun", count=2)) == first
    assert calls.unet - before == 2 * 3 * 2
    before, encoded = calls.unet, calls.vae
    said: list[str] = []
    scorer = TeacherScorer(teacher, tmp_path / "kept", count=2)
    assert run_benchmark(benchmark, scorer, say=lambda what, *_: said.append(what)) == first
    assert (calls.unet, calls.vae) == (before, encoded)
    assert "images" not in said  # none was decoded


def test_another_batch_size_shares_nothing_and_results_say_which_it_was(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    benchmark = Winoground("winoground", items, {})
    for size in (4, 8):
        calls.unet = 0
        results = run_benchmark(
            benchmark, TeacherScorer(teacher, tmp_path / "kept", count=2, batch_size=size)
        )
        assert calls.unet == 3 * 2 * 3 * 2
        assert (results.provenance["batch_size"], results.provenance["threads"]) == (
            size,
            torch.get_num_threads(),
        )


def test_two_runs_at_once_share_what_they_keep(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    one, other = (TeacherScorer(teacher, tmp_path / "kept", count=2) for _ in range(2))
    pairs = list(zip(prepared(one, items).scores(items), prepared(other, items).scores(items), strict=True))
    assert all(torch.equal(*pair) for pair in pairs)
    calls.unet = 0
    after = prepared(TeacherScorer(teacher, tmp_path / "kept", count=2), items)
    assert torch.equal(torch.stack(list(after.scores(items))), torch.stack([one for one, _ in pairs]))
    assert calls.unet == 0


def test_other_draws_and_errors_share_nothing(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    for settings in ({}, {"seed": 1}, {"count": 3}, {"error_of": "epsilon"}):
        scorer = TeacherScorer(teacher, tmp_path / "kept", **{"count": 2} | settings)  # type: ignore[arg-type]
        list(prepared(scorer, items[:1]).scores(items[:1]))
    assert calls.unet == (2 + 2 + 3 + 2) * 2 * 3


def test_teachers_that_differ_in_their_vae_alone_share_nothing(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    assert teacher.vae_version is not None
    for one in (teacher, replace(teacher, vae_version="another")):
        scorer = TeacherScorer(one, tmp_path / "kept", count=2)
        assert scorer.describe()["vae_version"] == one.vae_version
        list(prepared(scorer, items[:1]).scores(items[:1]))
    assert calls.unet == 2 * 2 * 2 * 3


def test_scores_that_other_packages_computed_are_not_found(
    teacher: Teacher,
    items: tuple[Item, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    calls: Calls,
) -> None:
    for packages in ("0" * 8, "1" * 8):
        monkeypatch.setattr(teacher_scorer, "computed_by", lambda packages=packages: packages)
        scorer = TeacherScorer(teacher, tmp_path / "kept", count=2)
        list(prepared(scorer, items[:1]).scores(items[:1]))
    assert calls.unet == 2 * 2 * 2 * 3


@pytest.mark.parametrize("error_of", get_args(ErrorOf))
def test_either_error_can_be_the_score(
    error_of: ErrorOf, teacher: Teacher, items: tuple[Item, ...], tmp_path: Path
) -> None:
    scorer = prepared(TeacherScorer(teacher, tmp_path / "kept", count=2, error_of=error_of), items)
    expected = [scores.corrected for scores in unshared(teacher, items, 2, error_of=error_of)]
    assert torch.equal(torch.stack(list(scorer.scores(items))), torch.stack(expected))
    assert scorer.describe()["score_error"] == error_of


def test_raw_figures_stand_beside_where_images_are_compared(
    teacher: Teacher, items: tuple[Item, ...], repeating: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    both = unshared(teacher, items, 2)
    calls.unet = 0
    scorer = TeacherScorer(teacher, tmp_path / "kept", count=2)
    results = run_teacher(Winoground("winoground", items, {}), scorer)
    assert calls.unet == 3 * 2 * 3 * 2

    def figures(scores: Tensor) -> dict[str, float]:
        return {name: share for name, (share, _) in winoground_shares(scores).items()}

    assert results.provenance["raw_score"] == figures(torch.stack([scores.raw for scores in both]))
    found = {name: metric.value for name, metric in results.metrics.items()}
    assert found == figures(torch.stack([scores.corrected for scores in both]))
    # What no caption explains of an image cancels in GroupMatch, so that it is the same by the raw score.
    assert results.provenance["raw_score"]["group_match"] == results.metrics["group_match"].value
    choice: Results = run_teacher(CaptionChoice("sugarcrepe", repeating, {}), scorer)
    assert "raw_score" not in choice.provenance


def test_a_long_item_says_that_it_goes_on(teacher: Teacher, items: tuple[Item, ...], tmp_path: Path) -> None:
    said: list[tuple[str, int, int]] = []
    scorer = TeacherScorer(teacher, tmp_path / "kept", count=4, batch_size=8)
    one = items[:1]
    run_benchmark(Winoground("winoground", one, {}), scorer, say=lambda *what: said.append(what))
    # 2 images, 2 captions and none, 4 draws, 8 at once.
    assert said == [("files", 2, 2), ("images", 2, 2), *[("items", 0, 1)] * 3, ("items", 1, 1)]


def test_an_image_that_cannot_be_read_is_found_before_anything_is_scored(
    teacher: Teacher, items: tuple[Item, ...], tmp_path: Path, calls: Calls
) -> None:
    problems = Problems(len(items))
    images = look_at_images(items, problems)
    items[2].images[0].path.unlink()
    scorer = TeacherScorer(teacher, tmp_path / "kept", count=2)
    scorer.prepare(items, images, problems)
    with pytest.raises(EvaluationError, match="1 of 3 items"):
        problems.check()
    assert calls == Calls()
