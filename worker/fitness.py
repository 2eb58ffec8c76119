"""Whether a worker may take jobs, or else why not.

A worker whose device or installation is broken would fail one job after the other within seconds, and take them from
the workers that are whole (docs/decisions/0079-workers-take-themselves-out.md).
"""

import logging
import os
import subprocess
import time

from app.data_folder import DataFolder
from app.errors import StoreUnavailable
from app.store.records import Job
from worker.config import WorkerConfig
from worker.protocol import environment
from worker.supervised import PYTHON

logger = logging.getLogger(__name__)

NOT_OF_THE_JOB = frozenset(
    {"process_died", "internal_error", "storage_failed", "dataset_missing", "version_damaged"}
)
"""The errors that a job's request and data do not explain."""
QUICK_S = 120.0
IN_A_ROW = 3
PAUSE_S, MAX_PAUSE_S = 60.0, 600.0
_TEST_TIMEOUT_S = 300.0


class Fitness:
    """A worker takes no jobs, and gives back the one that it has, while its data folder is not the database's.

    It also takes none after different jobs have failed quickly one after the other, until a test has passed.
    """

    def __init__(self, config: WorkerConfig, folder: DataFolder) -> None:
        self._config = config
        self._folder = folder
        self._failed: dict[str, str] = {}
        """The jobs that failed quickly since one did not, with their owners."""
        self._out_because: str | None = None
        self._pause_s = PAUSE_S
        self._test_at = 0.0

    @property
    def out_because(self) -> str | None:
        """Why the worker takes no jobs, as of the last `look`. None if it takes them."""
        return self._folder.trouble or self._out_because

    @property
    def has_its_folder(self) -> bool:
        """Whether files may be used, as of the last `look`."""
        return self._folder.is_right

    def look(self) -> None:
        """Look at the folder again. Raises StoreUnavailable."""
        self._folder.look()

    def may_claim(self) -> bool:
        """Look again, and return whether the worker may take a job now."""
        try:
            self._folder.look()
        except StoreUnavailable:
            return False
        return self.out_because is None

    def note(self, job: Job, outcome: str, code: str, seconds: float) -> None:
        """Note how an attempt ended: its outcome (`worker.metrics.OUTCOMES`), and the code of its error or ""."""
        if outcome == "succeeded" or seconds > QUICK_S:
            self._failed.clear()
            self._pause_s = PAUSE_S
            return
        if code not in NOT_OF_THE_JOB or job.id in self._failed:
            return
        self._failed[job.id] = job.owner
        if len(self._failed) < IN_A_ROW:
            return
        # If all belong to one key, they may be its doing. Others wait for the test alone.
        owners = set(self._failed.values())
        pause_s = 0.0 if len(owners) == 1 and "" not in owners else self._pause_s
        self._test_at = time.monotonic() + pause_s
        self._out_because = (
            f"{len(self._failed)} jobs failed one after the other within {QUICK_S:g} s of their start, the last one "
            f"with {code}. The worker takes no jobs until it has passed a test, which begins in {pause_s:g} s."
        )
        logger.error("%s They are %s.", self._out_because, ", ".join(self._failed))

    def test(self) -> None:
        """Test what jobs need if that is due. If the test passes, take jobs again, and fewer failures end that."""
        if self._out_because is None or time.monotonic() < self._test_at:
            return
        fault = self._fault()
        if fault is None:
            del self._failed[next(iter(self._failed))]
            self._out_because = None
            logger.warning("The worker has passed its test and takes jobs again.")
        else:
            self._test_at = time.monotonic() + self._pause_s
            self._out_because = (
                f"The worker has failed its test ({fault}), and repeats it every {self._pause_s:g} s."
            )
            logger.error("%s", self._out_because)
        self._pause_s = min(MAX_PAUSE_S, 2 * self._pause_s)

    def _fault(self) -> str | None:
        """What the test has found, or None."""
        config = self._config
        command = [*PYTHON, "worker.self_test", config.queue, config.device, str(config.jobs_dir)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TEST_TIMEOUT_S,
                env=environment(os.environ),
                check=False,
            )
        except OSError as error:
            return str(error)
        except subprocess.TimeoutExpired:
            return f"it took longer than {_TEST_TIMEOUT_S:g} s"
        if done.returncode == 0:
            return None
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit code {done.returncode}"
