"""When a worker first says that it lives."""

import socket
import subprocess
import sys
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import pytest

from bench.faults.proxy import Proxy
from sds_clip.app.store.states import JobStatus
from tests.worker.waiting import until
from tests.worker.work import Work

RUN = """
import sys
from sds_clip.worker import main
from sds_clip.worker.config import WorkerConfig

class Heartbeat:
    def __init__(self, *_, **__): pass
    def start(self): sys.exit("torch was imported before" if "torch" in sys.modules else 0)

main.Heartbeat = Heartbeat
main.run_worker(WorkerConfig.loads(sys.stdin.read()))
"""


def test_worker_says_that_it_lives_before_it_imports_torch(work: Work) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=work.config.dumps(), capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("databases", ["postgresql"], indirect=True)
def test_worker_that_starts_before_its_database_waits_for_it_and_says_so(
    work: Work, capfd: pytest.CaptureFixture[str]
) -> None:
    job = work.light("count", steps=1)
    url = urlsplit(work.config.database_url)
    with closing(Proxy(lambda: socket.create_connection((url.hostname, url.port)))) as proxy:
        through = work.config.database_url.replace(f":{url.port}/", f":{proxy.port}/")
        with ExitStack() as closes:
            with proxy.away("cut"):
                process = closes.enter_context(work.worker(database_url=through))
                said: list[str] = []

                def waits() -> bool:
                    said.append(capfd.readouterr().err)
                    return "The worker waits for it, for 60 s at most" in "".join(said)

                until(waits)
            work.until(job, JobStatus.SUCCEEDED)
            assert process.poll() is None
