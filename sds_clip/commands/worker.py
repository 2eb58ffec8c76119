"""`sds-clip worker`: runs jobs of one kind, one after another."""

import os
import signal
import sys
from pathlib import Path

import click

from sds_clip.extras import require_extra
from sds_clip.options import (
    command,
    compute_option,
    data_dir_option,
    option,
    read_worker_config,
    require_tracker,
    supervised_option,
)
from sds_clip.signals import end_with_supervisor, hold

QUEUES = ("finetune", "evaluate")


@command(
    examples="""\
sds-clip worker --queue finetune --device cuda:0
SDS_CLIP_BROKER_URL=redis://redis:6379/0 SDS_CLIP_DATABASE_URL=postgresql://sds@db/sds \\
    sds-clip worker --queue evaluate --data-dir /data
""",
)
@option("--queue", required=True, type=click.Choice(QUEUES), help="Run jobs of this kind.")
@compute_option(
    "--device",
    metavar="DEVICE",
    help="Compute on this device: auto, cpu, cuda or cuda:N (default: auto, or SDS_CLIP_WORKER_DEVICE, or "
    "SDS_CLIP_DEVICE). Jobs that ask for several devices need a list, such as cuda:0,cuda:1.",
)
@compute_option(
    "--threads",
    type=int,
    metavar="N",
    help="Compute with this many threads; 0 means torch's own choice (default: 0, or SDS_CLIP_WORKER_THREADS).",
)
@data_dir_option
@supervised_option
def worker(
    queue: str, device: str | None, threads: int | None, data_dir: Path | None, supervised: bool
) -> int:
    """Run the jobs of a service.

    A worker runs jobs of one kind on one device, one after another, each in its own process. On SIGTERM or Ctrl-C it
    stops the current job at a checkpoint and releases it, so that another worker can continue it.

    SDS_CLIP_BROKER_URL and SDS_CLIP_DATABASE_URL must name the service's broker and database, and --data-dir the
    folder that worker and service share. `sds-clip up` starts service and workers together.

    At the start, the worker waits a minute for the database. The exit code is 1 if it does not answer.
    """
    if supervised:
        end_with_supervisor()
    require_extra("train" if queue == "finetune" else "jobs", f"sds-clip worker --queue {queue}")
    config = read_worker_config(queue, worker_device=device, worker_threads=threads, data_dir=data_dir)
    require_tracker(config.log_to, f"SDS_CLIP_LOG_TO={config.log_to}")
    os.nice(config.nice)
    from sds_clip.app import logs
    from sds_clip.app.errors import StoreUnavailable
    from sds_clip.worker.main import run_worker

    logs.configure(config.log_level, config.log_format)
    try:
        run_worker(config, begin=lambda: hold([signal.SIGTERM, signal.SIGINT]))
    except StoreUnavailable as error:
        print(f"sds-clip: {error}", file=sys.stderr)
        return 1
    return 0
