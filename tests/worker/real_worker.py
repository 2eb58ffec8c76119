"""A whole worker as it is run: `python -m tests.worker.real_worker CONFIG_FILE`."""

import sys
from pathlib import Path

from sds_clip.app import logs
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.main import run_worker

if __name__ == "__main__":
    logs.configure()
    run_worker(WorkerConfig.loads(Path(sys.argv[1]).read_text()))
