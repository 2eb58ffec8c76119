"""Whether a worker may take jobs, or else why not.

A worker whose device or installation is broken would fail one job after the other within seconds, and take them from
the workers that are whole (docs/decisions/0078-one-data-folder.md).
"""

import logging
import os
import subprocess
import threading
import time

from sds_clip.app.data_folder import DataFolder
from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.store.records import Job
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.protocol import PYTHON, environment

logger = logging.getLogger(__name__)

NOT_OF_THE_JOB = frozenset(
    {"process_died", "internal_error", "storage_failed", "bad_device", "dataset_missing", "version_damaged"}
)
"""The errors that a job's request and data do not explain."""
QUICK_S = 120.0
BEFORE_TEST, BEFORE_PAUSE = 2, 3
"""Attempts in a row, after which the worker tests itself; and different jobs, after which it pauses before that."""
PAUSE_S, MAX_PAUSE_S = 60.0, 600.0
_TEST_TIMEOUT_S = 300.0


class Fitness:
    """A worker takes no jobs, and gives back the one that it has, while its data folder is not the database's.

    It also takes none after jobs have failed quickly one after the other, until a test has passed.
    """

    def __init__(self, config: WorkerConfig, folder: DataFolder) -> None:
        self._config = config
        self._folder = folder
        self._testing = threading.Lock()
        self._in_a_row = 0
        self._failed: dict[str, str] = {}
        """The jobs that failed quickly since one succeeded, with their owners."""
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
        """Look again, and return whether the worker may take a job now. A test that is due comes first, for seconds."""
        with self._testing:
            if self._out_because is not None and time.monotonic() >= self._test_at:
                self._test()
        try:
            self._folder.look()
        except StoreUnavailable:
            return False
        return self.out_because is None

    def note(self, job: Job, outcome: str, code: str, seconds: float) -> None:
        """Note how an attempt ended: its outcome (of `sds_clip.worker.metrics`), and the code of its error or ""."""
        if outcome == "succeeded" or seconds > QUICK_S:
            self._in_a_row, self._pause_s = 0, PAUSE_S
            self._failed.clear()
        if code not in NOT_OF_THE_JOB or seconds > QUICK_S:
            return
        self._in_a_row += 1
        self._failed[job.id] = job.owner
        if self._in_a_row < BEFORE_TEST:
            return
        # If all jobs belong to one key, they may be its doing, and the other keys wait for the test alone.
        owners = set(self._failed.values())
        is_out = len(self._failed) >= BEFORE_PAUSE and (len(owners) > 1 or "" in owners)
        pause_s = self._pause_s if is_out else 0.0
        self._test_at = time.monotonic() + pause_s
        when = f"in {pause_s:g} s" if is_out else "at once"
        self._out_because = (
            f"{self._in_a_row} attempts in a row failed within {QUICK_S:g} s of their start, the last one with {code}. "
            f"The worker takes no jobs until it has passed a test, which begins {when}."
        )
        level = logging.ERROR if is_out else logging.WARNING
        logger.log(level, "%s The jobs are %s.", self._out_because, ", ".join(self._failed))

    def _test(self) -> None:
        """Test what jobs need. If the test passes, take jobs again, but the next failure is tested at once."""
        fault = self._fault()
        if fault is None:
            if len(self._failed) >= BEFORE_PAUSE:
                del self._failed[next(iter(self._failed))]
                self._pause_s = min(MAX_PAUSE_S, 2 * self._pause_s)
            self._out_because = None
            logger.warning("The worker has passed its test and takes jobs again.")
            return
        self._test_at = time.monotonic() + self._pause_s
        self._out_because = (
            f"The worker has failed its test ({fault}), and repeats it in {self._pause_s:g} s."
        )
        self._pause_s = min(MAX_PAUSE_S, 2 * self._pause_s)
        logger.error("%s", self._out_because)

    def _fault(self) -> str | None:
        """What the test has found, or None."""
        config = self._config
        command = [*PYTHON, "sds_clip.worker.self_test", config.queue, config.device, str(config.jobs_dir)]
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
