"""How the embedded run ends, with real processes that do nothing else than end."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from sds_clip.supervisor import Child, System

OBEYS = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(0.1)  # so that the wrong order would show
    with open(sys.argv[2], "a") as notes:
        print(sys.argv[1], file=notes)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[2] + "." + sys.argv[1]).touch()
while True:
    time.sleep(1)
"""
REFUSES = OBEYS.replace("signal.signal(signal.SIGTERM, end)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
FAILS = "raise SystemExit(2)"
DIES = "import os; os.abort()"


def script(name: str, code: str, notes: Path) -> Child:
    """A child that runs a few lines, and notes that it has begun and ended."""
    return Child(name, [sys.executable, "-c", code, name, str(notes)], {})


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def run(notes: Path, service: str, worker: str, signals: int) -> int:
    """Run them, and send so many SIGINTs once they have begun."""
    system = System(
        script("service", service, notes),
        [script("worker", worker, notes)],
        notes.with_name(f"{notes.name}.service").exists,  # which it makes when it has begun
        None,
        worker_grace_s=60,
        service_grace_s=60,
    )

    def interrupt() -> None:
        while not notes.with_name(f"{notes.name}.worker").exists():
            time.sleep(0.02)
        for _ in range(signals):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)  # two signals at once are handled as one

    return system.run(lambda: threading.Thread(target=interrupt, daemon=True).start())


def test_workers_end_before_the_service(notes: Path) -> None:
    assert run(notes, OBEYS, OBEYS, signals=1) == 0
    assert notes.read_text().split() == ["worker", "service"]


def test_a_second_signal_does_not_wait_for_a_worker(notes: Path) -> None:
    started = time.monotonic()
    assert run(notes, OBEYS, REFUSES, signals=2) == 0
    assert time.monotonic() - started < 60  # the grace that the worker would have had
    assert "worker" not in (notes.read_text().split() if notes.exists() else [])


@pytest.mark.parametrize(("service", "code"), [(FAILS, 2), (DIES, 1)])
def test_a_service_that_does_not_come_up_ends_the_run(notes: Path, service: str, code: int) -> None:
    assert run(notes, service, OBEYS, signals=0) == code
    assert not notes.with_name("notes.worker").exists()


def test_signals_are_the_callers_again_afterwards(notes: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    run(notes, FAILS, OBEYS, signals=0)
    assert signal.getsignal(signal.SIGINT) is before
