"""When a worker first says that it lives."""

import subprocess
import sys

from worker.config import WorkerConfig

RUN = """
import sys
from worker import main
from worker.config import WorkerConfig

class Heartbeat:
    def __init__(self, *_, **__): pass
    def start(self): sys.exit("torch was imported before" if "torch" in sys.modules else 0)

main.Heartbeat = Heartbeat
main.run_worker(WorkerConfig.loads(sys.stdin.read()))
"""


def test_worker_says_that_it_lives_before_it_imports_torch(config: WorkerConfig) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=config.dumps(), capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
