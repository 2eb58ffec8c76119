"""A whole worker whose jobs are light: `python -m tests.worker.light_worker CONFIG_FILE`."""

import sys
from pathlib import Path

from app import logs
from tests.worker.waiting import LIGHT
from worker.config import WorkerConfig
from worker.main import run_worker

if __name__ == "__main__":
    logs.configure()
    run_worker(WorkerConfig.loads(Path(sys.argv[1]).read_text()), command=LIGHT)
