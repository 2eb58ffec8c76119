"""The folders of attempts: what the next one takes over, and what it leaves alone."""

import hashlib
import json
import os
from pathlib import Path

from sds_clip.app.store.records import Lease
from sds_clip.worker.folders import JobFolder


def folder(root: Path, fence: int) -> JobFolder:
    made = JobFolder(root, Lease("job_1", fence))
    made.open()
    return made


def save(attempt: JobFolder, step: int, content: bytes) -> Path:
    checkpoint = attempt.run / "checkpoints" / f"step-{step:08d}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.safetensors").write_bytes(content)
    (checkpoint / "state.json").write_text(json.dumps({"sha256": hashlib.sha256(content).hexdigest()}))
    return checkpoint


def state(attempt: JobFolder, step: int) -> Path:
    return attempt.run / "checkpoints" / f"step-{step:08d}" / "state.safetensors"


def test_newest_whole_checkpoint_of_any_attempt_before_is_taken_over_with_its_log(tmp_path: Path) -> None:
    first, second, third = (folder(tmp_path, fence) for fence in (1, 2, 3))
    save(first, 200, b"two hundred")
    (first.run / "log.jsonl").write_text("the first's")
    save(first, 400, b"four hundred").joinpath("state.safetensors").write_bytes(b"damaged")
    save(second, 100, b"one hundred")
    save(folder(tmp_path, 4), 900, b"of a later attempt")
    assert third.take_over() == 200
    assert state(third, 200).read_bytes() == b"two hundred"
    assert (third.run / "log.jsonl").read_text() == "the first's"
    assert [entry.name for entry in (third.run / "checkpoints").iterdir()] == ["step-00000200"]


def test_without_a_whole_checkpoint_the_attempt_starts_anew(tmp_path: Path) -> None:
    first, second = folder(tmp_path, 1), folder(tmp_path, 2)
    assert second.take_over() == 0
    save(first, 5, b"a").joinpath("state.json").unlink()
    assert second.take_over() == 0
    assert not list((second.run / "checkpoints").iterdir())


def test_what_was_taken_over_outlives_what_the_attempt_before_does_to_its_own(tmp_path: Path) -> None:
    zombie, new = folder(tmp_path, 1), folder(tmp_path, 2)
    save(zombie, 7, b"seven")
    new.take_over()
    assert os.path.samefile(state(zombie, 7), state(new, 7))
    state(zombie, 7).unlink()
    (zombie.run / "checkpoints" / "step-00000007" / "state.json").unlink()
    assert state(new, 7).read_bytes() == b"seven"


def test_attempts_before_go_once_the_new_one_has_a_checkpoint_of_its_own(tmp_path: Path) -> None:
    first, second, third = (folder(tmp_path, fence) for fence in (1, 2, 3))
    save(first, 7, b"seven")
    second.take_over()
    assert not second.has_checkpoint_after(7)
    save(second, 8, b"eight")
    assert second.has_checkpoint_after(7)
    second.drop_earlier()
    assert not first.path.exists()
    assert third.path.exists()
