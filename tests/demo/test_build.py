import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
import torch

from sds_clip.demo.build import build, main
from sds_clip.demo.train_student import Recipe
from sds_clip.models.evaluation.winoground import winoground_benchmark

DEMO = Path(__file__).parents[2] / "demo"


@pytest.mark.long
def test_built_folder_is_a_whole_demo_that_open_clip_loads(tmp_path: Path) -> None:
    build(tmp_path / "work", tmp_path / "demo", Recipe(steps=1, batch_size=8))
    reference = f"local-dir:{tmp_path / 'demo' / 'student'}"
    model, _, _ = open_clip.create_model_and_transforms(reference)
    tokenizer = open_clip.get_tokenizer(reference)
    with torch.inference_mode():
        assert model.encode_text(tokenizer(["a red circle"])).shape == (1, 192)
    for split in ("validation", "heldout"):
        assert len(winoground_benchmark(tmp_path / "demo" / "data" / split).items) == 450
    # The tokenizer that a build makes is the one that is stored.
    stored = (DEMO / "student" / "tokenizer.json").read_bytes()
    assert (tmp_path / "demo" / "student" / "tokenizer.json").read_bytes() == stored


@pytest.mark.parametrize(
    "other", [["--by-contrast-alone"], ["--seed", "1"], ["--steps", "10"], ["--steps", "0"]]
)
def test_another_student_does_not_replace_the_demo_s(
    other: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["sds_clip.demo.build", *other])
    with pytest.raises(SystemExit, match="2"):
        main()


def test_help_names_the_work_folder() -> None:
    command = [sys.executable, "-m", "sds_clip.demo.build", "--help"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=DEMO.parent).stdout
    assert "--work-dir" in printed
