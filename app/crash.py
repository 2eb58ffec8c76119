"""Places at which a process can be made to die, for the tests of what a crash leaves behind.

Nothing happens unless SDS_CLIP_CRASH_POINTS names a folder. A file in it with a point's name arms that point; the
number in the file says which visit counts, the first by default. The process that comes there renames the file to
NAME.reached, which only one can, waits until that is on the disk, and ends by SIGKILL.

    after-commit      the service: a job's row is committed, and nobody is woken yet
    after-claim       a slot: a job is claimed, and no process has it yet
    mid-step          a job: a step is taken, and neither told nor saved
    mid-checkpoint    a job: a checkpoint's tensors are written, and what describes them is not
    after-rename      a job: a version's folder has its name, and the version has no row yet
    mid-swap          the service: a version is ready, and not in service yet
"""

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Literal

from models.atomic import sync_folder

FOLDER = "SDS_CLIP_CRASH_POINTS"
REACHED = ".reached"

Point = Literal["after-commit", "after-claim", "mid-step", "mid-checkpoint", "after-rename", "mid-swap"]

_visits: Counter[str] = Counter()


def reach(point: Point) -> None:
    """Die here, if the environment and a file say so."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return
    armed = Path(folder) / point
    with contextlib.suppress(FileNotFoundError):  # not armed, or somebody else's death
        visit = int(armed.read_text(encoding="utf-8") or 1)
        _visits[point] += 1
        if _visits[point] >= visit:
            armed.rename(f"{armed}{REACHED}")
            sync_folder(armed.parent)
            os.kill(os.getpid(), signal.SIGKILL)
