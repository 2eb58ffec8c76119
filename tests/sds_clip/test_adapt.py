"""`sds-clip adapt` on the demo's validation groups, at whose matches it does not look."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from sds_clip.cli import main
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.evaluation.evaluation import measure_clip
from sds_clip.models.evaluation.readers import read_benchmark
from tests.benchmark_sets import save_controlled

DATA = Path("demo/data")


def adapt(out: Path, data: Path, *more: str, benchmark: str = "winoground") -> int:
    options = ("--base", "demo", "--data", str(data), "--out", str(out), "--device", "cpu")
    given = ("batch_size=32", "warmup_steps=1", "lr=5e-4", "trainable=all")
    return main(
        ["adapt", benchmark, *options, *(part for each in given for part in ("--option", each)), *more]
    )


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """The first forty groups."""
    folder = tmp_path / "groups"
    shutil.copytree(DATA / "validation" / "images", folder / "images")
    lines = (DATA / "validation" / "examples.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "examples.jsonl").write_text("".join(lines[:40]), encoding="utf-8")
    return folder


def test_rounds_go_from_the_surest_groups_to_all_and_what_was_lost_is_made_again_alike(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "adapted"

    assert adapt(out, few, "--rounds", "2", "--steps", "2") == 0

    shown = capsys.readouterr()
    assert shown.out == f"local-dir:{out / 'round-2' / 'delta'}\n"
    assert "Round 1 of 2: 20 of 40 groups are matched." in shown.err
    assert "Round 2 of 2: 40 of 40 groups are matched." in shown.err
    last = out / "round-2" / "delta" / "delta.safetensors"
    before = last.read_bytes()
    shutil.rmtree(out / "round-2")
    assert adapt(out, few, "--rounds", "2", "--steps", "2") == 0
    assert "Round 1" not in capsys.readouterr().err
    assert last.read_bytes() == before
    capsys.readouterr()
    for other in (("--steps", "3"), ("--first-share", "0.1"), ("--option", "lr=1e-3")):
        assert (
            adapt(out, few, "--rounds", "2", *(("--steps", "2") if "--steps" not in other else ()), *other)
            != 0
        )
        assert f"{out} was begun with other" in capsys.readouterr().err
    assert last.read_bytes() == before


def test_sets_of_four_photographs_are_groups_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = save_controlled(tmp_path / "whats-up"), tmp_path / "adapted"
    few = ("--option", "batch_size=4", "--first-share", "1")
    for seed, file in enumerate(sorted(data.rglob("*.jpeg"))):
        Image.effect_noise((64, 64), 20 + 15 * seed).save(file)

    assert adapt(out, data, "--rounds", "1", "--steps", "1", *few, benchmark="whats-up") == 0

    assert "Round 1 of 1: 3 of 3 groups are matched." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--option", "lr"), "Write --option as NAME=VALUE"),
        (("--option", "rate=1"), "rate"),
        (("--option", "negatives=none"), "--option cannot set negatives"),
        (("--option", "steps=7"), "--option cannot set steps"),
        (("--option", "batch_size=500"), "500"),
        (("--base", "local-dir:/nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_used_is_named_before_a_round_begins(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    assert adapt(tmp_path / "adapted", few, "--rounds", "1", "--steps", "1", *arguments) != 0
    assert words in capsys.readouterr().err
    assert not (tmp_path / "adapted" / "round-1" / "delta").exists()


@pytest.mark.long
def test_it_learns_in_the_demo_world_what_nobody_has_told_it(tmp_path: Path) -> None:
    """By chance 50 %. Neither set's captions were matched, and the held-out groups were not seen."""
    out = tmp_path / "adapted"

    assert adapt(out, DATA / "validation", "--rounds", "3", "--first-share", "0.3", "--steps", "60") == 0

    held_out = read_benchmark("winoground", DATA / "heldout", work=tmp_path)
    before, after = (
        measure_clip(
            load_clip(reference, device="cpu", precision="float32"), held_out, features=tmp_path / "f"
        )
        .metrics["group_match"]
        .value
        for reference in ("demo", f"local-dir:{out / 'round-3' / 'delta'}")
    )
    assert before < 0.72
    assert after > 0.9
