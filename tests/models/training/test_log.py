import json
import resource
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from sds_clip.models.errors import TrainingError
from sds_clip.models.training.log import Pace, RunLog


def steps_in(file: Path) -> list[int]:
    return [json.loads(line)["step"] for line in file.read_text().splitlines()]


def test_lines_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with closing(RunLog(file, 0)) as log:
        for step in (2, 4, 6):
            log.write({"step": step, "loss": 1 / 3})
    with file.open("a") as opened:
        opened.write('{"step": 4, "lo')  # killed while it wrote
    with closing(RunLog(file, 4)) as log:
        log.write({"step": 6, "loss": 0.25})
    assert steps_in(file) == [2, 4, 6]
    assert json.loads(file.read_text().splitlines()[0]) == {"step": 2, "loss": 0.333333}


def test_a_run_that_ended_before_its_delta_measures_again(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with closing(RunLog(file, 0)) as log:
        log.write({"step": 6, "loss": 0.25})
        log.write({"step": 6, "validation_clip": 0.5})
    with closing(RunLog(file, 6)) as log:
        assert log.records() == [{"step": 6, "loss": 0.25}]


def test_a_run_from_the_start_has_a_log_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with closing(RunLog(file, 0)) as log:
        log.write({"step": 2})
    with closing(RunLog(file, 0)):
        assert file.read_text() == ""


def test_a_folder_has_one_process_that_trains_in_it(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    with closing(RunLog(file, 0)) as log:
        log.write({"step": 2})
        with pytest.raises(TrainingError, match="Another process trains in"):
            RunLog(file, 0)
        log.write({"step": 4})
    assert steps_in(file) == [2, 4]
    with closing(RunLog(file, 2)):
        assert steps_in(file) == [2]


def test_a_full_disk_is_named_with_its_remedy(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", 0)
    log.close()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))  # as a disk with so much left
    try:
        with pytest.raises(TrainingError, match=r"log\.jsonl cannot be written .*Free some space"):
            log.write({"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_pace_counts_since_it_was_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 14.0, 16.0])
    # Not time.monotonic itself: the event loops of other tests' services run in threads of this process.
    monkeypatch.setattr("sds_clip.models.training.log.time", SimpleNamespace(monotonic=lambda: next(now)))
    pace = Pace()
    assert pace.since(8, 1.0) == {"examples_per_s": 2.0, "data_share": 0.25}
    assert pace.since(8, 1.5) == {"examples_per_s": 4.0, "data_share": 0.25}
