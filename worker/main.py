"""A worker from start to end: `run_worker(WorkerConfig(...))` in a process's main thread."""

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial

from sds_clip.app import tracing
from sds_clip.app.data_folder import DataFolder
from sds_clip.app.errors import StoreUnavailable
from sds_clip.app.jobs.wakeups import WakeUps
from sds_clip.app.store import Store
from sds_clip.app.store.states import JobKind
from sds_clip.worker.celery_app import RunJob, make_app, run
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.enlisting import enlist
from sds_clip.worker.fitness import Fitness
from sds_clip.worker.heartbeat import Heartbeat
from sds_clip.worker.identity import node_name, owner_name
from sds_clip.worker.metrics import WorkerMetrics, serve
from sds_clip.worker.mirror import MIRROR_EVERY_S, Mirror
from sds_clip.worker.periodic import Periodic
from sds_clip.worker.reaper import SWEEP_EVERY_S, Reaper
from sds_clip.worker.slot import Slot, end_orphans
from sds_clip.worker.supervised import COMMAND

logger = logging.getLogger(__name__)

WAIT_S = 60.0
"""How long a worker waits for its database when it starts."""
_TRY_AGAIN_S = 1.0


def run_worker(
    config: WorkerConfig, *, command: Sequence[str] | None = None, begin: Callable[[], None] = lambda: None
) -> None:
    """Take jobs until SIGTERM, SIGINT or `celery control shutdown`.

    A running job is then released at a checkpoint. Jobs are found without the broker while it is away.
    `command` replaces the program that runs a job. `begin` is called before the worker can have one.

    Raises: ConfigurationError for an unusable database URL or metrics port, and for a data folder that is not the
    database's; StoreUnavailable if the database does not answer within a minute.
    """
    tracing.configure("sds-clip-worker")
    store = Store(config.database_url, timeout_s=config.store_timeout_s)
    folder = DataFolder(store.database, config.data_dir)
    _prepare(store, folder)
    begin()
    config.jobs_dir.mkdir(parents=True, exist_ok=True)
    config.versions_dir.mkdir(parents=True, exist_ok=True)
    fitness = Fitness(config, folder)
    wake_ups = WakeUps(config.broker_url)
    metrics = WorkerMetrics(config.data_dir, config.disk_reserve_bytes)
    close_port = serve(metrics, config.metrics_host, config.metrics_port)
    heartbeat = Heartbeat(
        config,
        store,
        owner_name(os.getpid(), config.queue),
        metrics,
        end=lambda: os.kill(os.getpid(), signal.SIGTERM),
        fitness=fitness,
    )
    heartbeat.start()

    command = command or COMMAND
    slots = {config.kind: Slot(config, store, fitness, wake_ups.publish, metrics, command=command)}
    checks = config.of_checks
    if config.checks_datasets:
        # With a fitness of its own, since checks go on without the worker's device.
        owner = slots[config.kind].owner
        slots[checks.kind] = Slot(
            checks, store, Fitness(checks, folder), wake_ups.publish, metrics, command=command, owner=owner
        )
    reaper = Reaper(config, store, fitness, metrics)
    look = partial(enlist, config, store, fitness, wake_ups.publish)
    enlisting = Periodic("enlisting", look, config.idle_tick_s)
    cleanups = [
        Periodic("reaper", reaper.look, config.reap_every_s, at_once=False),
        Periodic("retention", reaper.sweep, SWEEP_EVERY_S),
        Periodic("fitness", fitness.look, config.watch_every_s),
        enlisting,
    ]
    mirror = Mirror(store, config.queue)
    if config.log_to == "mlflow":
        cleanups.append(Periodic("mlflow", mirror.look, MIRROR_EVERY_S))
    parts: list[Slot | Periodic] = [*slots.values(), *cleanups]  # a cleanup under way may be cut off

    def check(job_id: str, name: Callable[[str], None]) -> str:
        """The message may be that of an upload, whose check is not submitted yet."""
        enlisting.call()
        return slots[checks.kind].run(job_id, name)

    def stop() -> None:
        for part in parts:
            part.stop()

    end_orphans(config)
    for part in parts:
        part.start()
    try:
        runs: dict[JobKind, RunJob] = {kind: slot.run for kind, slot in slots.items()}
        if config.checks_datasets:
            runs[checks.kind] = check
        run(make_app(config, runs), node_name(os.getpid(), config.queue), list(runs), stop)
    finally:
        stop()
        for slot in slots.values():
            slot.join()
        mirror.release()
        heartbeat.close()
        close_port()
        wake_ups.close()
        store.close()
        logger.info("The worker has stopped.")


def _prepare(store: Store, folder: DataFolder) -> None:
    """Migrate the database and check the folder, as soon as the database answers."""
    until = time.monotonic() + WAIT_S
    logged = False
    while True:
        try:
            store.migrate()
            folder.check()
            return
        except StoreUnavailable:
            if time.monotonic() > until:
                raise
        if not logged:
            logger.warning(
                "The database does not respond. The worker waits for it, for %g s at most.", WAIT_S
            )
            logged = True
        time.sleep(_TRY_AGAIN_S)
