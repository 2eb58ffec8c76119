import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sds_clip.models.errors import CheckpointTooLargeError, TrainingError
from sds_clip.models.run_files import checkpoints_in
from sds_clip.models.training.checkpoint import Checkpoints

NEEDS_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


class Model:
    """One parameter with an optimizer; a step adds to both."""

    def __init__(self, device: str = "cpu", *, fused: bool = True) -> None:
        self.parameters = {"w": nn.Parameter(torch.ones(2, 3, device=device).T)}
        self.optimizer = torch.optim.AdamW(self.parameters.values(), lr=0.1, fused=fused)

    def step(self) -> None:
        weights = self.parameters["w"]
        weights.grad = torch.empty_like(weights).copy_(torch.tensor([[1.0, 2.0], [-2.0, 3.0], [0.5, 1.5]]))
        self.optimizer.step()

    def save(self, checkpoints: Checkpoints, step: int) -> None:
        checkpoints.save(step, self.parameters, self.optimizer)

    def restore(self, checkpoints: Checkpoints) -> int:
        return checkpoints.restore(self.parameters, self.optimizer)


def checkpoints_of(folder: Path, *, keep: int = 2, **identity: object) -> Checkpoints:
    return Checkpoints(folder / "checkpoints", {"lr": 0.1, "seed": 0, **identity}, keep)


def names(folder: Path) -> list[str]:
    return sorted(found.name for found in (folder / "checkpoints").iterdir())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
@pytest.mark.parametrize("fused", [True, False])  # former releases did not use the fused kernel
def test_a_restored_optimizer_goes_on_as_if_it_had_not_stopped(
    fused: bool, device: str, tmp_path: Path
) -> None:
    model, resumed = Model(device, fused=fused), Model(device)
    model.step()
    model.save(checkpoints_of(tmp_path), 1)
    assert resumed.restore(checkpoints_of(tmp_path)) == 1
    for each in (model, resumed):
        each.step()
    torch.testing.assert_close(
        model.parameters["w"], resumed.parameters["w"], rtol=1e-6 * (not fused), atol=0
    )


def test_without_a_checkpoint_a_run_starts_at_zero(tmp_path: Path) -> None:
    assert Model().restore(checkpoints_of(tmp_path)) == 0


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    model, checkpoints = Model(), checkpoints_of(tmp_path)
    model.step()
    for step in (1, 2, 10):
        model.save(checkpoints, step)
    assert names(tmp_path) == ["step-00000002", "step-00000010"]


def saved_step(model: Model, checkpoints: Checkpoints, step: int) -> None:
    model.step()
    model.save(checkpoints, step)


def size_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def test_older_ones_go_where_all_would_be_over_the_bytes_allowed_and_what_lies_beside_them_counts(
    tmp_path: Path,
) -> None:
    model, checkpoints = Model(), checkpoints_of(tmp_path, keep=9)
    saved_step(model, checkpoints, 1)
    each = size_bytes(tmp_path / "checkpoints" / "step-00000001")
    bounded = replace(checkpoints, max_bytes=4 * each)
    for step in (2, 3, 4, 5):
        saved_step(model, bounded, step)
    assert names(tmp_path) == [f"step-{step:08d}" for step in (2, 3, 4, 5)]
    (tmp_path / "log.jsonl").write_bytes(bytes(2 * each))
    saved_step(model, bounded, 6)
    assert names(tmp_path) == ["step-00000005", "step-00000006"]


def test_room_is_made_before_one_is_written_and_the_newest_stays_until_that_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def save_and_look(*args: object) -> None:
        save_file(*args)  # type: ignore[arg-type]
        seen.append(names(tmp_path))

    monkeypatch.setattr("sds_clip.models.training.checkpoint.save_file", save_and_look)
    model, checkpoints = Model(), checkpoints_of(tmp_path, keep=9)
    for step in (1, 2, 3):
        saved_step(model, checkpoints, step)
    each = size_bytes(tmp_path / "checkpoints" / "step-00000001")
    saved_step(model, replace(checkpoints, max_bytes=each + 8), 4)
    assert [name for name in seen[-1] if not name.startswith(".")] == ["step-00000003"]
    assert names(tmp_path) == ["step-00000004"]


def test_one_that_alone_is_over_the_bytes_allowed_is_refused_and_those_before_stay(tmp_path: Path) -> None:
    model, checkpoints = Model(), checkpoints_of(tmp_path)
    for step in (1, 2):
        saved_step(model, checkpoints, step)
    with pytest.raises(CheckpointTooLargeError) as raised:
        saved_step(model, replace(checkpoints, max_bytes=10), 3)
    assert raised.value.code == "checkpoint_too_large"
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_what_is_raised_before_saving_leaves_all_as_it_was(tmp_path: Path) -> None:
    told: list[int] = []

    def refuse(wanted_bytes: int) -> None:
        told.append(wanted_bytes)
        raise BlockingIOError

    model, checkpoints = Model(), checkpoints_of(tmp_path)
    for step in (1, 2):
        saved_step(model, checkpoints, step)
    with pytest.raises(BlockingIOError):
        saved_step(model, replace(checkpoints, before_saving=refuse, max_bytes=10**6), 3)
    assert told == [4 * (6 + 6 + 6 + 1)]  # w, both moments, and the optimizer's step
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def cut_short(folder: Path) -> None:
    file = folder / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def flip_a_bit(folder: Path) -> None:
    file = folder / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


BREAKS: list[Callable[[Path], object]] = [
    cut_short,
    flip_a_bit,
    lambda folder: (folder / "state.safetensors").unlink(),
    lambda folder: (folder / "state.json").unlink(),
    lambda folder: (folder / "state.json").write_text('{"step": 2'),
    lambda folder: (folder / "state.json").write_text("[]"),
]


@pytest.mark.parametrize("break_it", BREAKS)
def test_a_broken_newest_gives_way_to_the_one_before(
    break_it: Callable[[Path], object], tmp_path: Path
) -> None:
    model, checkpoints = Model(), checkpoints_of(tmp_path)
    model.step()
    model.save(checkpoints, 1)
    first = model.parameters["w"].detach().clone()
    model.step()
    model.save(checkpoints, 2)
    break_it(tmp_path / "checkpoints" / "step-00000002")
    assert Model().restore(checkpoints) == 1
    resumed = Model()
    resumed.restore(checkpoints)
    assert torch.equal(resumed.parameters["w"], first)


def test_one_that_is_kept_alone_is_the_one_just_saved_and_no_broken_later_one(tmp_path: Path) -> None:
    model, checkpoints = Model(), checkpoints_of(tmp_path)
    model.step()
    for step in (10, 20):
        model.save(checkpoints, step)
    cut_short(tmp_path / "checkpoints" / "step-00000020")
    model.save(checkpoints_of(tmp_path, keep=1), 15)
    assert names(tmp_path) == ["step-00000015"]


def test_where_all_are_broken_nothing_starts_over_silently(tmp_path: Path) -> None:
    model, checkpoints = Model(), checkpoints_of(tmp_path)
    model.step()
    model.save(checkpoints, 1)
    cut_short(tmp_path / "checkpoints" / "step-00000001")
    with pytest.raises(TrainingError, match=r"No checkpoint in .*checkpoints is"):
        Model().restore(checkpoints)


def test_another_run_s_is_refused_with_what_differs(tmp_path: Path) -> None:
    model = Model()
    model.step()
    model.save(checkpoints_of(tmp_path, data_hash="a"), 1)
    with pytest.raises(TrainingError, match=r"data_hash 'a' -> 'b'; seed 0 -> 1"):
        Model().restore(checkpoints_of(tmp_path, data_hash="b", seed=1))


def test_an_option_that_the_run_s_release_did_not_have_is_at_its_default(tmp_path: Path) -> None:
    model = Model()
    model.step()
    checkpoints_of(tmp_path, seed=1).save(1, model.parameters, model.optimizer)
    restored = checkpoints_of(tmp_path, seed=1, conflicts="keep").restore(model.parameters, model.optimizer)
    assert restored == 1
    with pytest.raises(TrainingError, match=r"conflicts 'keep' -> 'project'"):
        checkpoints_of(tmp_path, seed=1, conflicts="project").restore(model.parameters, model.optimizer)


def test_what_a_kill_left_half_written_is_never_seen_and_goes(tmp_path: Path) -> None:
    left = tmp_path / "checkpoints" / ".step-00000001.abcd"
    left.mkdir(parents=True)
    (left / "state.safetensors").write_bytes(b"half")
    model, checkpoints = Model(), checkpoints_of(tmp_path)
    assert model.restore(checkpoints) == 0
    assert not checkpoints_in(checkpoints.folder)
    model.step()
    model.save(checkpoints, 2)
    assert names(tmp_path) == ["step-00000002"]


def test_the_description_says_what_the_run_is(tmp_path: Path) -> None:
    model = Model()
    model.step()
    model.save(checkpoints_of(tmp_path), 3)
    content = json.loads((tmp_path / "checkpoints" / "step-00000003" / "state.json").read_text())
    assert content["step"] == 3
    assert content["run"] == {"lr": 0.1, "seed": 0}


def test_a_run_of_before_there_was_a_choice_kept_the_negatives_that_text_alone_tells(tmp_path: Path) -> None:
    model = Model()
    model.step()
    model.save(checkpoints_of(tmp_path, negatives="swap"), 1)
    assert model.restore(checkpoints_of(tmp_path, negatives="swap", negatives_balance=False)) == 1
    for balance in (True, None):  # None is to balance what is made
        with pytest.raises(TrainingError, match="negatives_balance False"):
            model.restore(checkpoints_of(tmp_path, negatives="swap", negatives_balance=balance))
