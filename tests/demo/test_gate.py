"""Gate 0, on a student that nothing was taught and for a few steps."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sds_clip.demo import gate as module
from sds_clip.demo import probe
from sds_clip.demo.gate import ExactPairs, Gate, ceiling_config, exact_sample, gate, row
from sds_clip.demo.measure import StudentScores
from sds_clip.demo.sets import training_pairs
from sds_clip.demo.winoground_sets import KINDS
from sds_clip.models.checkpoints.load import load_clip


def scores(matched: dict[str, bool], retrieval: float) -> StudentScores:
    """One item of each kind."""
    return StudentScores(
        kinds=list(KINDS), text=[True] * 3, image=[True] * 3, retrieval=retrieval, zero_shot=0.0,
        margins=[1.0 if matched[kind] else -1.0 for kind in KINDS],
    )  # fmt: skip


BAG = {"attributes": True, "objects": False, "relation": False}
ALL = dict.fromkeys(KINDS, True)
GOOD = Gate(1_500_000, [0.9, 0.95, 1.0], [0.92, 0.9, 0.9], scores(BAG, 0.91), scores(ALL, 0.5))


@pytest.mark.parametrize(
    ("changed", "holds"),
    [
        ({}, {"a", "b", "c"}),
        ({"image": [0.9, 0.89, 1.0]}, {"b", "c"}),
        ({"text": [0.9, 1.0, 0.89]}, {"b", "c"}),
        ({"scores": scores(BAG, 0.89)}, {"a", "c"}),
        ({"scores": scores(BAG | {"relation": True}, 0.91)}, {"a", "c"}),
        ({"ceiling": scores(ALL | {"attributes": False}, 0.91)}, {"a", "b"}),
    ],
)
def test_gate_holds(changed: dict[str, object], holds: set[str]) -> None:
    found = replace(GOOD, **changed)  # type: ignore[arg-type]
    assert {name for name, held in found.holds.items() if held} == holds


def test_row_gives_every_figure() -> None:
    expected = "| mine | 1.5 | 90.0 95.0 100.0 | 92.0 90.0 90.0 | 100.0 0.0 0.0 | 91.0 | 100.0 100.0 100.0 | a, b, c |"
    assert row("mine", GOOD) == expected


def test_negatives_are_the_captions_of_the_swapped_scenes() -> None:
    for index, scene in enumerate(training_pairs(0, 0, 60).scenes):
        sample = exact_sample(scene, index)
        (said,), (swaps,) = sample.captions, sample.negatives
        if len(scene.things) == 1:
            assert swaps == ()
            continue
        first, second = scene.things
        assert said not in swaps
        assert len(set(swaps)) == len(swaps) >= 2
        # Exchanged colours are an exchange of places too, where the shapes are the same.
        assert len(swaps) == 3 or first.colour == second.colour or first.shape == second.shape
        for swap in swaps:
            assert {first.shape, second.shape, first.colour, second.colour} <= {*swap.split()}


@pytest.mark.long
def test_student_is_measured_fine_tuned_and_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "ITEMS_PER_KIND", 5)
    monkeypatch.setattr(module, "PAIRS", 128)
    monkeypatch.setattr(probe, "FITTED", 64)
    monkeypatch.setattr(probe, "MEASURED", 32)
    monkeypatch.setattr(sys, "argv", ["gate", "demo", "--steps", "2", "--work-dir", str(tmp_path)])
    module.main()
    (line,) = capsys.readouterr().out.splitlines()[2:]
    clip = load_clip("demo", device="cpu", precision="float32")
    assert line.startswith(f"| demo | {clip.parameters / 1e6:.1f} | ")
    # The fine-tuned weights are stored, and used again.
    again = gate(clip, tmp_path, ceiling_config("demo", 2), ExactPairs(128))
    assert row("demo", again) == line
