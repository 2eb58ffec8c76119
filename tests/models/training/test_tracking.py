"""What a run tells a tracker, and that a tracker can neither fail nor slow it."""

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sds_clip.models.training import tracking
from sds_clip.models.training.parts import Parts
from sds_clip.models.training.run import train
from sds_clip.models.training.trackers import run_id
from sds_clip.models.training.tracking import Outcome, Tracker
from sds_clip.models.training.watcher import Record, Watcher
from tests.training import PLACE, Stopper, configure
from tests.worker.waiting import until


class Told(Tracker):
    """A tracker that writes down what it is told, or fails or hangs at its n-th record."""

    def __init__(self, fails_at: int = 0, hangs: bool = False) -> None:
        self.config: Mapping[str, Any] = {}
        self.steps: list[int] = []
        self.outcome: Outcome | None = None
        self.let_go = threading.Event()
        self._fails_at, self._hangs = fails_at, hangs

    def begin(self, config: Mapping[str, Any]) -> None:
        self.config = config

    def log(self, record: Record) -> int:
        if self._hangs:
            self.let_go.wait()
        self.steps.append(int(record["step"]))
        if len(self.steps) == self._fails_at:
            raise ConnectionError("no route to the tracker\nand more")
        return 1

    def end(self, outcome: Outcome) -> None:
        self.outcome = outcome


def test_a_resumed_run_tells_everything_since_its_first_step(parts: Parts, tmp_path: Path) -> None:
    config = configure(objective="clip", steps=4, log_every=1)
    calls = iter(range(1, 100))
    stopped, resumed = Told(), Told()
    train(config, parts, tmp_path, PLACE, tracker=stopped, watcher=Stopper(lambda: next(calls) == 2))
    train(config, parts, tmp_path, PLACE, tracker=resumed, resume=True)

    assert (stopped.steps, stopped.outcome) == ([1, 2], Outcome.KILLED)
    assert (resumed.steps, resumed.outcome) == ([1, 2, 3, 4], Outcome.FINISHED)
    assert resumed.config["objective"] == "clip"


def test_a_tracker_that_fails_is_left_alone_with_one_warning(
    parts: Parts, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(fails_at=2)
    result = train(configure(objective="clip", log_every=1), parts, tmp_path, PLACE, tracker=told)

    assert result.delta is not None
    assert told.steps == [1, 2]
    (warning,) = (record for record in caplog.records if record.name == tracking.__name__)
    assert (warning.levelno, warning.getMessage()) == (
        logging.WARNING,
        "The tracker failed, and the run goes on without it (ConnectionError: no route to the tracker). The run's own "
        "log is complete.",
    )


def test_a_tracker_that_hangs_does_not_hold_the_run(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracking, "END_WAIT_S", 0.0)
    told = Told(hangs=True)
    result = train(configure(objective="clip", log_every=1), parts, tmp_path, PLACE, tracker=told)
    told.let_go.set()

    assert result.delta is not None
    assert "still busy" in caplog.text


def test_a_tracker_that_starts_slower_than_the_run_trains_gets_every_step(
    parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "END_WAIT_S", 1.0)
    log = tmp_path / "log.jsonl"

    class Slow(Told):
        def begin(self, config: Mapping[str, Any]) -> None:
            until(lambda: log.exists() and len(log.read_text().splitlines()) == 4)
            time.sleep(2.0)  # longer than the end waits for what is sent

    told = Slow()
    train(configure(objective="clip", log_every=1), parts, tmp_path, PLACE, tracker=told)
    assert (told.steps, told.outcome) == ([1, 2, 3, 4], Outcome.FINISHED)


def test_a_tracker_begins_before_the_first_step(parts: Parts, tmp_path: Path) -> None:
    """And before the fit of the mapper, which gives it time."""
    told: list[str] = []

    class Beginning(Told):
        def begin(self, config: Mapping[str, Any]) -> None:
            told.append("begun")

    class Waiting(Watcher):
        def on_batch(self, stage: str, done: int, total: int) -> None:
            until(lambda: told)
            told.append(stage)

    config = configure(steps=1, mapper_start="ridge", ridge_images=8)
    train(config, parts, tmp_path, PLACE, tracker=Beginning(), watcher=Waiting())
    assert told == ["begun", "fitting the mapper", "fitting the mapper"]


def test_a_run_that_fails_is_told_as_failed(parts: Parts, tmp_path: Path) -> None:
    told = Told()

    def fail() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(configure(objective="clip"), parts, tmp_path, PLACE, tracker=told, watcher=Stopper(fail))
    assert told.outcome is Outcome.FAILED


def test_a_run_keeps_its_id_only_with_its_checkpoints(tmp_path: Path) -> None:
    first = run_id(tmp_path / "run")
    assert run_id(tmp_path / "run") != first  # it starts from step 0 again
    last = run_id(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-00000002").mkdir(parents=True)
    assert run_id(tmp_path / "run") == last
