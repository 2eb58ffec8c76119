"""What each term of the objective is in a run: its weight, what it compares, and what it learns from the steps."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sds_clip.models.checkpoints.delta import clip_with
from sds_clip.models.data.batches import batch_indices, other_caption
from sds_clip.models.data.pairs import Negative, PairSet, Sample
from sds_clip.models.errors import ConfigError
from sds_clip.models.training.objective import Objective
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.run import train
from tests.training import EVERY_TERM, PLACE, TwoCaptions, configure, gradients, last_checkpoint, state_after

UNCLIPPED = 1e9
CE_CLIP: dict[str, object] = {"objective": "clip", "negatives": "data", "negatives_count": 2}


class Kinds(TwoCaptions):
    """Pairs with a negative of a kind, and another in two of three, of another kind or of none."""

    def sample(self, index: int) -> Sample:
        sample = self._pairs.sample(index)
        caption = sample.captions[0]
        more: list[tuple[str, ...]] = [(), (Negative(f"no {caption}", "negation"),), (f"two of {caption}",)]
        return replace(sample, negatives=((Negative(caption[::-1], "reversed"), *more[index % 3]),))


@pytest.fixture
def kinds(parts: Parts) -> Parts:
    return replace(parts, pairs=Kinds(parts.pairs))


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def state(out: Path, step: int) -> dict[str, float]:
    found = json.loads((out / "checkpoints" / f"step-{step:08d}" / "state.json").read_text())["state"]
    return dict(found)


def features(parts: Parts, step: int) -> tuple[Tensor, Tensor, list[list[tuple[str, Tensor]]]]:
    """The base's images, texts and negatives of a step's batch, in float64, one after the other."""
    images, texts, negatives = [], [], []

    def encoded(text: str) -> Tensor:
        return F.normalize(parts.base.encode_text(parts.base.tokenizer([text])).double(), dim=-1)[0]

    for index in batch_indices(len(parts.pairs), 8, 0, step).tolist():
        sample = parts.pairs.sample(index)
        pixels = parts.base.preprocess(parts.pairs.image(index))[None]
        images.append(F.normalize(parts.base.encode_image(pixels).double(), dim=-1)[0])
        texts.append(encoded(sample.captions[0]))
        of_one = [(getattr(text, "kind", ""), encoded(text)) for text in sample.negatives[0]]
        negatives.append(of_one)
    return torch.stack(images), torch.stack(texts), negatives


def test_thresholds_are_the_mean_distances_of_the_step_before_by_kind(kinds: Parts, tmp_path: Path) -> None:
    """The learning rate is too small to move the student, so that each step's distances are the base's."""
    shared: dict[str, object] = {"steps": 2, "lr": 1e-12, "rank_weight": 0.4, "save_every": 1, "log_every": 1}
    train(configure(**CE_CLIP, **shared), kinds, tmp_path / "run", PLACE)
    thresholds: dict[str, float] = {}
    for step in (0, 1):
        images, texts, negatives = features(kinds, step)
        total, gaps = 0.0, dict[str, list[float]]()
        for image, text, of_one in zip(images, texts, negatives, strict=True):
            for kind, negative in of_one:
                gap = kinds.base.logit_scale * (image @ text - image @ negative).item()
                total += max(0.0, thresholds.get(kind, 0.0) - gap)
                gaps.setdefault(kind, []).append(gap)
        thresholds |= {kind: sum(each) / len(each) for kind, each in gaps.items()}
        assert records(tmp_path / "run")[step]["rank"] == pytest.approx(total / 16, rel=1e-3)
        expected = {f"rank_threshold {kind}": value for kind, value in thresholds.items()}
        assert state(tmp_path / "run", step + 1) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert set(thresholds) == {"", "reversed", "negation"}


def test_no_threshold_is_above_its_bound() -> None:
    objective = Objective(configure(**CE_CLIP, rank_weight=1.0, rank_max_threshold=5.0), 1)
    found = objective._thresholds(["a", "b", "a"], [4.0, 0.5, 10.0])
    assert found == {"rank_threshold a": 5.0, "rank_threshold b": 0.5}


def test_each_term_adds_its_value_times_its_weight(parts: Parts, tmp_path: Path) -> None:
    own = replace(parts, pairs=TwoCaptions(parts.pairs))
    options = {**EVERY_TERM, "negatives_weight": 0.7, "feature_distillation_weight": 3.0, "lr": 0.01}
    train(configure(objective="clip", log_every=1, **options), own, tmp_path, PLACE)
    weights = {
        "clip": 1.0, "negatives": 0.7, "intra_modal": 0.2, "rank": 0.4, "paraphrase": 0.5,
        "feature_distillation": 3.0, "similarity_distillation": 1.0,
    }  # fmt: skip
    for record in records(tmp_path):
        total = sum(weight * record[name] for name, weight in weights.items())
        assert record["loss"] == pytest.approx(total, rel=1e-4)
    assert records(tmp_path)[0]["feature_distillation"] == pytest.approx(0, abs=1e-9)
    assert records(tmp_path)[-1]["feature_distillation"] > 1e-6


@pytest.mark.parametrize("trainable", ["layernorm", "all"])
def test_against_forgetting_a_student_is_compared_with_the_base_as_it_was(
    trainable: str, parts: Parts, tmp_path: Path
) -> None:
    weights = {"feature_distillation_weight": 1e-9, "similarity_distillation_weight": 1e-9}
    every: dict[str, object] = {"log_every": 1, "save_every": 1, "trainable": trainable, "lr": 3e-3}
    train(configure(objective="clip", steps=3, **every, **weights), parts, tmp_path, PLACE)
    network: Any = deepcopy(parts.base.network)
    trained = {
        name.removeprefix("student."): value
        for name, value in state_after(2, tmp_path).items()
        if "|" not in name
    }
    network.load_state_dict({**network.state_dict(), **trained})
    student = replace(parts, base=clip_with(parts.base, network))
    (image, text, _), (base_image, base_text, _) = features(student, 2), features(parts, 2)
    squared = ((image - base_image) ** 2).sum() + ((text - base_text) ** 2).sum()
    p = parts.base.logit_scale * base_image @ base_text.T
    q = student.base.logit_scale * image @ text.T
    divergences = [
        (a.softmax(1) * (a.log_softmax(1) - b.log_softmax(1))).sum() for a, b in ((p, q), (p.T, q.T))
    ]
    found = records(tmp_path)[2]
    assert found["feature_distillation"] == pytest.approx(squared.item() / 16, rel=1e-3)
    assert found["similarity_distillation"] == pytest.approx(sum(divergences).item() / 16, rel=1e-3)
    assert found["feature_distillation"] > 1e-4


@pytest.mark.parametrize("trainable", ["layernorm", "lora", "text-map"])
def test_against_forgetting_a_student_stays_near_its_base(
    trainable: str, parts: Parts, tmp_path: Path
) -> None:
    moved = []
    for weight in (0.0, 1e4):
        out = tmp_path / str(weight)
        options: dict[str, object] = {"lr": 3e-3, "log_every": 1, "steps": 6, "trainable": trainable}
        config = configure(
            objective="clip",
            feature_distillation_weight=weight,
            similarity_distillation_weight=1e-9,
            **options,
        )
        train(config, parts, out, PLACE)
        moved.append(records(out)[-1]["similarity_distillation"])
    assert moved[1] < moved[0] / 2


def test_the_alignment_draws_another_caption_by_seed_and_epoch_and_skips_images_with_one(
    pairs: PairSet,
) -> None:
    sample = replace(pairs.sample(0), captions=("one", "two", "three", "one"), negatives=())
    drawn = [other_caption(sample, 5, epoch, 7) for epoch in range(20)]
    assert drawn == [other_caption(sample, 5, epoch, 7) for epoch in range(20)]
    assert set(drawn) == {"one", "two", "three"}
    assert other_caption(pairs.sample(0), 5, 0, 7) is None
    assert other_caption(replace(sample, captions=("one", "one")), 5, 0, 7) is None


def test_data_without_a_second_caption_are_refused_by_name(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No image of pairs has two different captions"):
        train(configure(objective="clip", paraphrase_weight=1.0), parts, tmp_path, PLACE)


@pytest.mark.parametrize("conflicts", ["keep", "project"])
@pytest.mark.parametrize("objective", ["sds-clip", "condition", "noise-contrast"])
def test_lambda_auto_balances_the_gradients_in_the_warm_up_and_then_stays(
    objective: str, conflicts: str, parts: Parts, tmp_path: Path
) -> None:
    config = configure(
        objective=objective, conflicts=conflicts, steps=6, warmup_steps=2, log_every=1, mapper_warmup_steps=1,
        save_every=1, keep_checkpoints=9, **{"lambda": "auto"},
    )  # fmt: skip
    train(config, parts, tmp_path, PLACE)
    found = records(tmp_path)
    weights, shares = (
        [record[name] for record in found] for name in ("teacher_weight", "teacher_gradient_share")
    )
    assert (weights[0], shares[0]) == (1, 0)  # only the mapper is trained
    assert shares[1] == pytest.approx(1, rel=1e-4)
    alike = weights[2] / shares[2]  # the weight by which the third step's gradients would have been alike
    assert weights[2] == pytest.approx((weights[1] * alike) ** 0.5, rel=1e-4)
    assert weights[2:] == [weights[2]] * 4
    assert state(tmp_path, 6)["teacher_weight"] == pytest.approx(weights[2], rel=1e-5)
    name = objective.replace("-", "_").replace("sds_clip", "sds")
    for record in found:
        total = record["clip"] + record["teacher_weight"] * record[name]
        assert record["loss"] == pytest.approx(total, rel=1e-4)
    written = json.loads((tmp_path / "delta" / "sds_clip_delta.json").read_text())
    assert written["metrics"]["teacher_weight"] == pytest.approx(weights[2], rel=1e-5)


def test_in_its_first_step_lambda_auto_is_the_run_with_the_weight_that_it_found(
    parts: Parts, tmp_path: Path
) -> None:
    shared: dict[str, object] = {"steps": 1, "max_gradient_norm": UNCLIPPED, "trainable": "all"}
    train(configure(**shared, **{"lambda": "auto"}), parts, tmp_path / "auto", PLACE)
    weight = state(tmp_path / "auto", 1)["teacher_weight"]
    train(configure(**shared, sds_weight=weight), parts, tmp_path / "known", PLACE)
    auto, known = (gradients(last_checkpoint(tmp_path / name)) for name in ("auto", "known"))
    assert auto.keys() == known.keys()
    for name, value in auto.items():
        torch.testing.assert_close(value, known[name], rtol=1e-4, atol=1e-6)
