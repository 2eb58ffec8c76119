"""`sds-clip up`: the whole system on this machine."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING

from sds_clip.commands.worker import QUEUES, check_training
from sds_clip.errors import CliError
from sds_clip.options import (
    REFERENCES,
    Commands,
    add_command,
    add_service_options,
    service_settings,
    settings_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sds_clip.up.address import Address
    from sds_clip.worker_settings import WorkerSettings
    from worker.valkey import Valkey

_DESCRIPTION = """\
Start the whole system: the HTTP service, a worker for fine-tuning and one for evaluation, Valkey to wake them and
a SQLite database, all in --data-dir. What dies is started again. Ctrl-C stops it: jobs are let go at a checkpoint,
and the next start goes on with them. A second Ctrl-C does not wait for that.

SDS_CLIP_BROKER_URL and SDS_CLIP_DATABASE_URL put a Redis and a PostgreSQL in place of the embedded ones.
"""

_EPILOG = (
    REFERENCES
    + """
examples:
  sds-clip up
  sds-clip up --model ViT-B-32/openai --data-dir /data/sds-clip --worker-device cuda:0
"""
)

_NICE = 10
"""Of the workers: a request comes before a step of training."""
_MARGIN_S = 10.0
"""For a child to end, after what it is at has ended."""


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "up", "run the whole system on this machine", description=_DESCRIPTION, epilog=_EPILOG
    )
    add_service_options(parser)
    parser.add_argument(
        "--worker-device",
        metavar="DEVICE",
        help="where jobs are computed (default: as --device, or SDS_CLIP_WORKER_DEVICE)",
    )
    parser.add_argument(
        "--worker-threads",
        type=int,
        metavar="N",
        help="compute threads of a job (default: half of the cores, or SDS_CLIP_WORKER_THREADS)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or Ctrl-C; the service's exit code where it did not come up."""
    check_training()
    from app import logs
    from app.keys import ConfigurationError
    from sds_clip.worker_settings import WorkerSettings
    from worker.valkey import Valkey

    given = {name: getattr(args, name) for name in ("worker_device", "worker_threads")}
    settings = settings_of(WorkerSettings, service_settings(args) | given)
    logs.configure(settings.log_level)
    try:
        # Before anything else, since it is what refuses a second run over the folder.
        with Valkey(settings.data_dir / "broker") if settings.broker_url is None else nullcontext() as broker:
            return _system(settings, broker)
    except ConfigurationError as error:
        raise CliError(str(error)) from error


def _system(settings: WorkerSettings, broker: Valkey | None) -> int:
    from sds_clip.up.address import Address
    from sds_clip.up.child import Child
    from sds_clip.up.system import System

    address = Address(settings.host, settings.port)
    environment = child_environment(settings, settings.broker_url if broker is None else broker.url)
    system = System(
        Child("service", _serve(settings, address), environment),
        [Child(f"{queue} worker", ["worker", "--queue", queue], environment) for queue in QUEUES],
        address,
        broker,
        worker_grace_s=settings.stop_grace_s + _MARGIN_S,
        service_grace_s=settings.drain_timeout_s + _MARGIN_S,
    )
    return system.run(lambda: announce(address, settings.data_dir))


def _serve(settings: WorkerSettings, address: Address) -> list[str]:
    """Arguments and no environment: a reference may hold a comma."""
    models = [option for model in settings.models for option in ("--model", model)]
    return ["serve", "--host", address.host, "--port", str(address.port), *models]


def child_environment(settings: WorkerSettings, broker_url: str | None) -> dict[str, str]:
    """What the children are told beside the environment that they inherit."""
    from sqlalchemy import URL

    from models.machine import usable_cores

    data_dir = settings.data_dir.absolute()
    database = URL.create("sqlite", database=str(data_dir / "sds-clip.db")).render_as_string()
    values = {
        "data_dir": data_dir,
        "database_url": settings.database_url or database,
        "broker_url": broker_url,
        "keys_file": settings.keys_file and settings.keys_file.absolute(),
        "device": settings.device,
        "precision": settings.precision,
        "threads": settings.threads,
        "worker_device": settings.worker_device,
        "worker_threads": settings.worker_threads or max(1, usable_cores() // 2),
        "worker_nice": _NICE if settings.worker_nice is None else settings.worker_nice,
    }
    return {f"SDS_CLIP_{name.upper()}": str(value) for name, value in values.items() if value is not None}


def announce(address: Address, data_dir: Path) -> None:
    """Say where the run is, and why it is not ready where it is not."""
    from sds_clip.client.connection import DEFAULT_URL

    state = "is ready" if address.problem is None else "runs"
    print(f"SDS-CLIP {state} at {address.url} and keeps everything in {data_dir}.")
    if address.problem is not None:
        print(f"It is not ready: {address.problem}")
    url = "" if address.url == DEFAULT_URL else f" --url {address.url}"
    print(f"Next: see {address.url}/docs, or `sds-clip jobs list{url}`. Ctrl-C stops it.", flush=True)
