"""`sds-clip worker`: takes jobs of one kind and runs them, one after another."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sds_clip.errors import CliError
from sds_clip.held_signals import hold
from sds_clip.options import Commands, add_command, add_data_dir_option, add_supervised_option, settings_of
from sds_clip.up.orphans import end_with_supervisor

if TYPE_CHECKING:
    from sds_clip.worker_settings import WorkerSettings
    from worker.config import WorkerConfig

QUEUES = ("finetune", "evaluate")
_EXTRA = ("accelerate", "diffusers")

_DESCRIPTION = """\
Take jobs of one kind and run them on one device, each in a process of its own, until SIGTERM or Ctrl-C: the job
at hand is then stopped at a checkpoint and let go, for the next worker to go on with.

SDS_CLIP_BROKER_URL and SDS_CLIP_DATABASE_URL name the broker and the database of the service, and --data-dir the
folder that it shares with the service. `sds-clip up` starts all of it.
"""

_EPILOG = """\
examples:
  sds-clip worker --queue finetune --device cuda:0
  SDS_CLIP_BROKER_URL=redis://redis:6379/0 SDS_CLIP_DATABASE_URL=postgresql://sds@db/sds \\
      sds-clip worker --queue evaluate --data-dir /data
"""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "worker", "run jobs", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--queue", required=True, choices=QUEUES, help="which jobs")
    parser.add_argument(
        "--device",
        dest="worker_device",
        metavar="DEVICE",
        help="auto, cpu, cuda or cuda:N (default: SDS_CLIP_WORKER_DEVICE, or SDS_CLIP_DEVICE)",
    )
    parser.add_argument(
        "--threads",
        dest="worker_threads",
        type=int,
        metavar="N",
        help="compute threads, 0 for torch's own number (default: 0, or SDS_CLIP_WORKER_THREADS)",
    )
    add_data_dir_option(parser)
    add_supervised_option(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Work until SIGTERM or Ctrl-C; 1 where the database does not answer at the start."""
    if args.supervised:
        end_with_supervisor()
    if args.queue == "finetune":
        check_training()
    from sds_clip.worker_settings import WorkerSettings

    given = {name: getattr(args, name) for name in ("worker_device", "worker_threads", "data_dir")}
    settings = settings_of(WorkerSettings, given)
    config = worker_config(settings, args.queue)
    os.nice(settings.worker_nice or 0)
    from app import logs
    from app.errors import ConfigurationError
    from app.store.errors import StoreUnavailable
    from worker.main import run_worker

    logs.configure(settings.log_level)
    hold([signal.SIGTERM, signal.SIGINT])
    try:
        run_worker(config)
    except ConfigurationError as error:
        raise CliError(str(error)) from error
    except StoreUnavailable as error:
        print(f"sds-clip: {error}", file=sys.stderr)
        return 1
    return 0


def check_training() -> None:
    """Raise CliError where the packages that fine-tuning needs are not installed."""
    missing = [name for name in _EXTRA if find_spec(name) is None]
    if missing:
        raise CliError(f"fine-tuning needs {' and '.join(missing)}: pip install 'sds-clip[train]'")


def worker_config(settings: WorkerSettings, queue: str) -> WorkerConfig:
    """What a worker of the queue is told. Raises CliError where an address is missing."""
    from app.jobs.limits import JobLimits
    from worker.config import WorkerConfig

    if settings.broker_url is None or settings.database_url is None:
        missing = "SDS_CLIP_BROKER_URL" if settings.broker_url is None else "SDS_CLIP_DATABASE_URL"
        raise CliError(f"a worker needs {missing}, the same as the service has; or run `sds-clip up`.")
    return WorkerConfig(
        broker_url=settings.broker_url,
        database_url=settings.database_url,
        data_dir=settings.data_dir.absolute(),
        queue="finetune" if queue == "finetune" else "evaluate",
        device=settings.worker_device or settings.device,
        gpu_memory_share=settings.gpu_memory_share,
        threads=settings.worker_threads,
        dataset_roots=tuple(settings.dataset_roots),
        lease_ttl_s=settings.lease_ttl_s,
        stall_timeout_s=settings.stall_timeout_s,
        stop_grace_s=settings.stop_grace_s,
        store_timeout_s=settings.store_timeout_s,
        keep_warm=settings.keep_warm,
        checks_datasets=settings.checks_datasets,
        limits=JobLimits.of(settings),
        max_job_bytes=settings.max_job_bytes,
        min_save_interval_s=settings.min_save_interval_s,
        disk_reserve_bytes=settings.disk_reserve_bytes,
        keep_files_s=settings.keep_files_s,
        keep_events_s=settings.keep_events_s,
        feature_cache_bytes=settings.feature_cache_bytes,
    )
