"""Measures how long a claim takes while 50 workers claim at once on PostgreSQL, and that no job is taken twice.

Ten processes of five threads claim 1,500 jobs, which one or five owners have submitted, without pauses.
"""

import multiprocessing
import statistics
import threading
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier

from sds_clip.app.store import Store
from sds_clip.app.store.records import NewJob
from sds_clip.app.store.states import JobKind
from tests.postgres import running_postgresql

JOBS, PROCESSES, THREADS = 1500, 10, 5
Claims = list[tuple[str, float]]
"""Ids of jobs, and the seconds that their claims took."""


def claim_all(url: str, name: str, ready: Barrier, claims: "Queue[Claims]") -> None:
    """Claim in several threads until there is nothing left."""
    found: Claims = []

    def claim() -> None:
        store = Store(url)
        store.leases.claim(JobKind.EVALUATE, "warm", 60)
        ready.wait()
        while True:
            begun = time.perf_counter()
            job = store.leases.claim(JobKind.FINETUNE, name, 600)
            if job is None:
                break
            found.append((job.id, time.perf_counter() - begun))
        store.close()

    threads = [threading.Thread(target=claim) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    claims.put(found)


def row(url: str, owners: int) -> str:
    """Submit the jobs, let all claim, and say what came of it."""
    store = Store(url)
    store.migrate()
    for number in range(JOBS):
        store.jobs.submit(NewJob(JobKind.FINETUNE, {"n": number}, owner=f"owner {number % owners}"))
    spawn = multiprocessing.get_context("spawn")
    ready, claims = spawn.Barrier(PROCESSES * THREADS), spawn.Queue()
    processes = [
        spawn.Process(target=claim_all, args=(url, f"worker {n}", ready, claims)) for n in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    found = [claim for _ in processes for claim in claims.get()]
    for process in processes:
        process.join()
    store.close()
    hundredths = statistics.quantiles([taken * 1000 for _, taken in found], n=100)
    twice = len(found) - len({job for job, _ in found})
    return f"| {owners} | {len(found)} | {twice} | {hundredths[49]:.0f} | {hundredths[98]:.0f} |"


if __name__ == "__main__":
    print("| owners | claims | taken twice | p50 ms | p99 ms |\n| ---: | ---: | ---: | ---: | ---: |")
    with running_postgresql() as server:
        for owners in (1, 5):
            print(row(server.url(server.create()), owners), flush=True)
