"""The other processes of a job on several devices. The job's own process is the first of them, and starts the rest.

They are those of a run under `torchrun`: each takes its part of every batch, and only the first writes files and
reports. They have no lease. One that dies ends the first, and all end with it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sds_clip.app import logs
from sds_clip.models.training.config import FinetuneConfig
from sds_clip.models.training.parts import Parts, Tell, load_parts
from sds_clip.models.training.processes import Rank, exchanged, find_rank, leave, meet
from sds_clip.models.training.run import train
from sds_clip.worker.config import CAPTION_CACHE_BYTES, WorkerConfig
from sds_clip.worker.context import limit
from sds_clip.worker.protocol import PYTHON, environment, read_assignment

logger = logging.getLogger("sds_clip.worker.followers")  # run as __main__

_FIRST_FAILS_S = 60.0
"""How long a process that has failed waits for the first one, which usually meets the same error and can record it."""


@dataclass(frozen=True)
class Training:
    """What all processes of a job are told."""

    worker: WorkerConfig
    devices: int
    config: FinetuneConfig
    """With paths for its data sets and a base that can be loaded."""
    recorded: FinetuneConfig
    """As the run records it."""
    out: Path
    val_max_bad_share: float

    def dumps(self) -> str:
        configurations = [each.model_dump(mode="json") for each in (self.config, self.recorded)]
        told = self.worker.dumps(), self.devices, *configurations, str(self.out), self.val_max_bad_share
        return json.dumps(told)

    @classmethod
    def loads(cls, text: str) -> Training:
        worker, devices, config, recorded, out, share = json.loads(text)
        read = FinetuneConfig.model_validate
        return cls(WorkerConfig.loads(worker), devices, read(config), read(recorded), Path(out), share)

    def load(self, rank: Rank, say: Tell = lambda message: None) -> Parts:
        """What a process of the job computes with."""
        return load_parts(
            self.config,
            rank,
            say,
            confined=True,
            val_max_bad_share=self.val_max_bad_share,
            max_cache_bytes=CAPTION_CACHE_BYTES,
        )

    def join(self, index: int) -> None:
        """Wait until all processes have started. The folder of the run belongs to one attempt, and so does the file."""
        meet(self.out.with_name("meeting"), self.worker.devices[index], index, self.devices)


@contextlib.contextmanager
def followed(training: Training) -> Iterator[None]:
    """Within the block, this process is the first of as many as the job has devices."""
    if training.devices == 1:
        yield
        return
    ending = threading.Event()
    for index in range(1, training.devices):
        follower = subprocess.Popen(
            [*PYTHON, "sds_clip.worker.followers", str(index)],
            stdin=subprocess.PIPE,  # closes when this process ends, however it ends
            env=environment(os.environ),
        )
        assert follower.stdin is not None
        follower.stdin.write(f"{training.dumps()}\n".encode())
        follower.stdin.flush()
        threading.Thread(target=_watch, args=(follower, ending), daemon=True).start()
    try:
        training.join(0)
        yield
    finally:
        ending.set()
    leave()


def _watch(follower: subprocess.Popen[bytes], ending: threading.Event) -> None:
    """End this process, which might wait for the follower for hours, if that one dies."""
    code = follower.wait()
    if code != 0 and not ending.is_set():
        logger.error("Another process of the job ended unexpectedly with the code %d.", code)
        os._exit(1)


def main(index: int) -> None:
    """Train as one of several processes. Never returns."""
    training = Training.loads(read_assignment())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # only the first process decides when all stop
    logs.configure(training.worker.log_level, training.worker.log_format)
    code = 0
    try:
        _follow(training, index)
    except Exception:
        logger.exception("A process of a job on several devices failed.")
        time.sleep(_FIRST_FAILS_S)
        code = 1
    os._exit(code)  # even if other threads are still running


def _follow(training: Training, index: int) -> None:
    training.join(index)
    rank = find_rank(training.worker.devices[index])
    limit(training.worker, str(rank.device))
    parts = training.load(rank)
    exchanged(None)  # the first process has taken the checkpoints over
    train(training.recorded, parts, training.out, rank, resume=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
