"""The log of a run: one JSON object per line, in OUT/log.jsonl."""

import fcntl
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import torch

from sds_clip.models.errors import TrainingError
from sds_clip.models.training.watcher import Record


class RunLog:
    """Appends records. After a resume, the lines of what will be repeated are dropped: later steps, and validation.

    The file is locked until `close`, so that no second process trains in its folder.
    """

    def __init__(self, file: Path, steps_done: int) -> None:
        """Raises TrainingError if the file is locked or cannot be written."""
        self._file = file
        self._held = _lock(file)
        kept = [line for line in _lines(file) if _is_kept(line, steps_done)] if steps_done else []
        with writing(file):
            file.write_text("".join(kept), encoding="utf-8")

    def write(self, record: Record) -> None:
        with writing(self._file), self._file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps({name: _short(value) for name, value in record.items()}) + "\n")

    def close(self) -> None:
        self._held.close()

    def records(self) -> list[Record]:
        """Return everything that the run has logged, including before a resume."""
        return [json.loads(line) for line in _lines(self._file)]


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep other processes from training in the folder of a log. Raises TrainingError if one does."""
    with closing(_lock(file)):
        yield


def _lock(file: Path) -> IO[str]:
    with writing(file):
        held = file.open("a")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        held.close()
        raise TrainingError(
            f"Another process trains in {file.parent}. Wait until it has ended, or use another --out."
        ) from error
    except OSError:  # a file system without locks
        pass
    return held


def read_log(file: Path) -> Iterator[Record]:
    """Yield the records of a log, without a last line that was cut short; none if there is no log."""
    for line in _lines(file):
        try:
            yield json.loads(line)
        except ValueError:
            return


@contextmanager
def writing(file: Path) -> Iterator[None]:
    """Wrap the writing of a file: raise TrainingError, naming the file, if it fails."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"{file} cannot be written ({error.strerror}). Free some space or choose another --out, and run the "
            "command again; `sds-clip finetune` continues with --resume."
        ) from error


class Pace:
    """The speed of the steps, and the share of time they wait for data, since it was last asked."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._waited_s = 0.0

    def since(self, examples: int, waited_s: float) -> Record:
        """Return examples per second, and the share of the time spent waiting for data.

        `waited_s` is the total over the run. Each call starts a new interval.
        """
        now = time.monotonic()
        elapsed = max(now - self._began, 1e-9)
        waited = waited_s - self._waited_s
        self._began, self._waited_s = now, waited_s
        return {"examples_per_s": examples / elapsed, "data_share": waited / elapsed}


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what is queued, so that a clock counts it. A CPU never queues."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory so far, of the GPU if one is used, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    scale = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []


def _is_kept(line: str, steps_done: int) -> bool:
    try:
        record = json.loads(line)
        return bool(record["step"] <= steps_done) and "validation_clip" not in record
    except (ValueError, KeyError, TypeError):  # cut short by a kill
        return False


def _short(value: int | float) -> int | float:
    return value if isinstance(value, int) else float(f"{value:.6g}")
