"""What is read from a run's folder without training."""

from pathlib import Path

from sds_clip.models.run_files import checkpoint_name, checkpoints_in, unfinished_in


def test_checkpoints_are_in_the_order_of_their_steps_however_long_their_numbers(tmp_path: Path) -> None:
    steps = [99_999_999, 100_000_000, 2]
    for name in [*map(checkpoint_name, steps), ".step-00000003", "step-x", "other"]:
        (tmp_path / name).mkdir()
    assert [step for step, _ in checkpoints_in(tmp_path)] == sorted(steps)
    assert [path.name for path in unfinished_in(tmp_path)] == [".step-00000003"]


def test_a_folder_that_does_not_exist_has_no_checkpoints(tmp_path: Path) -> None:
    assert checkpoints_in(tmp_path / "none") == []
