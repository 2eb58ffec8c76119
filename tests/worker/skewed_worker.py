"""A whole worker on a host whose clock is an hour ahead: `python -m tests.worker.skewed_worker CONFIG_FILE`."""

import time

AHEAD_S = 3600.0

if __name__ == "__main__":
    real = time.time
    time.time = lambda: real() + AHEAD_S  # before anything is imported that keeps it

    import sys
    from pathlib import Path

    from sds_clip.app import logs
    from sds_clip.worker.config import WorkerConfig
    from sds_clip.worker.main import run_worker
    from tests.worker.waiting import LIGHT

    logs.configure()
    run_worker(WorkerConfig.loads(Path(sys.argv[1]).read_text()), command=LIGHT)
