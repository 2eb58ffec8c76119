import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from torch import nn

from sds_clip.demo.checkpoint import log, resume, save_checkpoint, seconds_trained
from sds_clip.demo.learning_rate import PlateauRate
from sds_clip.demo.train_vae import VaeRecipe


@dataclass(frozen=True)
class Recipe(PlateauRate):
    steps: int = 100
    learning_rate: float = 1.0
    warmup_steps: int = 10
    decay_share: float = 0.2
    timesteps: tuple[int, int] = (250, 950)


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    return layer


def test_parts_are_put_where_the_checkpoint_has_them(tmp_path: Path) -> None:
    stored, fresh = linear(3.0), linear(0.0)
    save_checkpoint(tmp_path / "run.pt", Recipe(), 7, 12.5, {"network": stored})
    assert resume(tmp_path / "run.pt", Recipe(), {"network": fresh}) == (7, 12.5)
    assert torch.equal(fresh.weight, stored.weight)
    assert seconds_trained(tmp_path / "run.pt") == 12.5


def test_run_without_a_checkpoint_starts_at_its_first_step(tmp_path: Path) -> None:
    assert resume(tmp_path / "run.pt", Recipe(), {}) == (0, 0.0)


def test_checkpoint_half_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path / "run.pt", Recipe(), 7, 1.0, {"network": linear(3.0)})

    def stopped(state: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "run.pt", Recipe(), 8, 2.0, {"network": linear(4.0)})
    assert resume(tmp_path / "run.pt", Recipe(), {}) == (7, 1.0)


@pytest.mark.parametrize("change", [{"learning_rate": 2.0}, {"timesteps": (0, 950)}])
def test_checkpoint_of_another_recipe_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    save_checkpoint(tmp_path / "run.pt", Recipe(), 7, 1.0, {})
    with pytest.raises(ValueError, match="another recipe"):
        resume(tmp_path / "run.pt", replace(Recipe(), **change), {})


def test_run_on_its_plateau_can_be_lengthened_and_cut(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run.pt", Recipe(), 80, 1.0, {})
    for steps in (80, 90, 500):
        assert resume(tmp_path / "run.pt", replace(Recipe(), steps=steps), {}) == (80, 1.0)
    with pytest.raises(ValueError, match="80 steps done"):
        resume(tmp_path / "run.pt", replace(Recipe(), steps=79), {})


def test_run_whose_rate_has_fallen_keeps_its_length(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run.pt", Recipe(), 82, 1.0, {})
    assert resume(tmp_path / "run.pt", Recipe(), {}) == (82, 1.0)
    with pytest.raises(ValueError, match="falls already"):
        resume(tmp_path / "run.pt", replace(Recipe(), steps=200), {})


def test_run_of_one_cycle_keeps_its_length_from_the_start(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "vae.pt", VaeRecipe(), 1, 1.0, {})
    with pytest.raises(ValueError, match="falls already"):
        resume(tmp_path / "vae.pt", replace(VaeRecipe(), steps=VaeRecipe.steps + 1), {})


def test_log_is_printed_and_appended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]
    for record in records:
        log(tmp_path / "new", record)
    for text in ((tmp_path / "new" / "log.jsonl").read_text(), capsys.readouterr().out):
        assert [json.loads(line) for line in text.splitlines()] == records
