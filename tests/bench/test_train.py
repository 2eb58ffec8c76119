import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import flops, memory, report, steps, train
from bench.bare_step import bare_step, clear, prepare
from bench.memory import Memory
from bench.options import parse
from bench.sets import make_pairs
from bench.steps import STEP, Waits, set_checkpointing, time_steps
from bench.train_parts import (
    CLIP,
    FULL,
    MEASURED,
    RECOMPUTED,
    SDS,
    VARIANTS,
    Model,
    Shapes,
    build,
    new_loader,
    new_unet,
)
from sds_clip.models.data.batches import Batch
from sds_clip.models.training import cost
from sds_clip.models.training.parts import with_negatives
from sds_clip.models.training.trainer import Trainer

PEAK = """
import torch
from bench import memory
torch.ones(256 * 2**18)  # a higher peak before does not count
before = memory.start_peak(torch.device("cpu"))
torch.ones(128 * 2**18)
print(memory.read_peak(torch.device("cpu")) - before)
"""
SHAPES = Shapes("tiny", "tiny", "cpu", "float32", batch_size=8, sds_batch_size=4, score_draws=2)


@pytest.fixture(scope="module")
def model() -> Model:
    return build(SHAPES)


@pytest.fixture(scope="module")
def batch(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    pairs = make_pairs(tmp_path_factory.mktemp("data"), 8)
    (only,) = new_loader(model, with_negatives(model.trainer(CLIP).config, pairs), 1)
    negatives = [only.negatives[0][:1], *only.negatives[1:]]
    assert len({len(texts) for texts in negatives[::2]}) > 1  # of those that the teacher sees
    return replace(only, negatives=negatives)


def gradient_norms(trainer: Trainer) -> dict[str, float]:
    groups = {"gradient_norm": trainer.student.values(), "mapper_gradient_norm": trainer.mapper.values()}
    return {
        name: float(torch.cat([value.grad.flatten() for value in group]).norm())  # type: ignore[union-attr]
        for name, group in groups.items()
        if group
    }


@pytest.mark.parametrize("variant", MEASURED)
def test_bare_step_does_all_the_forward_and_backward_work_of_the_trainers(
    model: Model, batch: Batch, variant: str
) -> None:
    trainer = model.trainer(variant, steps=1)

    loss = bare_step(model, prepare(model, trainer.config, batch), variant)
    bare = {"loss": float(loss), **gradient_norms(trainer)}
    clear(model)
    ours = trainer.step(batch)

    assert bare == pytest.approx({name: ours[name] for name in bare}, rel=1e-4)


def test_every_variant_is_timed_with_its_own_options(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped: list[tuple[str, ...]] = []
    bare: list[str] = []

    def step(self: Trainer, batch: Batch) -> None:
        stepped.append((self.config.objective, self.config.gradient, self.config.trainable))

    monkeypatch.setattr(Trainer, "step", step)
    monkeypatch.setattr(steps, "bare_step", lambda model, ready, variant: bare.append(variant))

    seconds = time_steps(model, make_pairs(tmp_path, 16), rounds=1)

    # Once to warm up, once timed; a full gradient is taken with and without checkpointing, and a text map's
    # embeddings are computed before.
    assert Counter(stepped) == {
        ("sds-clip", "full", "layernorm"): 4,
        ("sds-clip", "sds", "layernorm"): 2,
        ("condition", "full", "layernorm"): 2,
        ("noise-contrast", "full", "layernorm"): 2,
        ("score", "full", "layernorm"): 2,
        ("clip", "full", "layernorm"): 2,
        ("clip", "full", "text-map"): 4,
    }
    assert Counter(bare) == dict.fromkeys(MEASURED, 2)
    assert {len(times) for times in seconds.values()} == {1}
    assert len(seconds) == 2 * len(VARIANTS) - 1


def test_timed_step_of_a_text_map_finds_its_embeddings_known(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[bool] = []
    step = Trainer.step

    def watched(self: Trainer, batch: Batch) -> dict[str, float]:
        if self.config.trainable == "text-map":
            known.append(all(self.knows_image(index) for index in batch.indices.tolist()))
        return step(self, batch)

    monkeypatch.setattr(Trainer, "step", watched)
    time_steps(model, make_pairs(tmp_path, 16), rounds=1)

    assert known == [False, False, True, True]


def test_checkpointing_belongs_to_its_variant_alone(model: Model) -> None:
    def checkpointing() -> bool:
        return any(
            getattr(part, "gradient_checkpointing", False) for part in model.teacher.denoiser.modules()
        )

    states = {}
    for variant in VARIANTS:
        set_checkpointing(model, variant)
        states[variant] = checkpointing()
    set_checkpointing(model, FULL)

    assert states == {variant: variant == RECOMPUTED for variant in VARIANTS}
    assert not checkpointing()


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak cannot be reset here")
def test_peak_is_what_was_held_at_once_and_given_back() -> None:
    # In a process of its own: here, memory that other tests have left may be used again.
    found = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True)

    assert float(found.stdout) == pytest.approx(128, abs=8)


@pytest.mark.long
@pytest.mark.slow
def test_step_is_taken_in_a_process_of_its_own_and_takes_memory(tmp_path: Path) -> None:
    measured = memory.measure_memory(SHAPES, SDS, tmp_path)

    assert measured.before_mib > 100
    assert measured.step_mib > 1


@pytest.mark.long
@pytest.mark.slow
def test_failed_step_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="nowhere"):
        memory.measure_memory(replace(SHAPES, device="nowhere"), SDS, tmp_path)


def test_a_ratio_is_of_medians_with_the_least_and_the_greatest_of_a_round() -> None:
    assert report.shown_ratio([2.0, 3.0, 2.2], [1.0, 2.0, 2.0]) == "1.100 (1.100 to 2.000)"


def test_missed_targets_are_named() -> None:
    seconds = {
        (variant, way): [2.0 if way == STEP else 1.5] for variant in MEASURED for way in (STEP, "bare")
    }
    waits = [Waits("cold", steps=2, examples=8, seconds=10.0, data_s=0.3, captions_s=0.3)]

    targets = train.targets(seconds, waits)

    assert [target.met for target in targets] == [False] * (len(MEASURED) + 1)
    assert targets[-1].value == pytest.approx(0.06)


def test_quick_run_prints_every_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "measure_memory", lambda *_: Memory(before_mib=100.0, step_mib=8.0))

    train.main(["--quick", "--rounds", "1", "--cache", str(tmp_path)])

    printed = capsys.readouterr().out
    assert "`python -m bench.train --quick --rounds" in printed
    for beginning in ("| full, activation checkpointing |", "| captions from the cache on disk |"):
        assert beginning in printed
    assert printed.count("(at most 1.1:") == len(MEASURED)
    assert printed.count("(at most 0.05:") == 2


def test_named_unet_is_stable_diffusions_and_made_in_its_format() -> None:
    unet = new_unet("sd15", "meta", torch.bfloat16)

    assert cost.count_parameters(unet) == 859_520_964
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() is torch.float32


def test_default_teacher_sees_half_of_a_batch() -> None:
    shapes = parse(train.Plan, "bench.train", None, []).shapes

    assert shapes == replace(
        SHAPES,
        student="ViT-B-32",
        unet="small",
        device="auto",
        precision="auto",
        batch_size=16,
        sds_batch_size=8,
        score_draws=2,
    )


@pytest.mark.long
@pytest.mark.slow
def test_counts_that_the_estimates_stand_on_are_the_printed_ones(capsys: pytest.CaptureFixture[str]) -> None:
    docs = Path(__file__).parents[2] / "docs"
    flops.print_parts()
    assert capsys.readouterr().out in (docs / "reproduce.md").read_text()
    flops.print_teachers()
    assert capsys.readouterr().out in (docs / "how-to/gpu.md").read_text()
