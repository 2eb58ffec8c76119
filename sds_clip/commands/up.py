"""`sds-clip up`: the whole system on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sds_clip.commands.worker import QUEUES
from sds_clip.database import embedded_database, open_store
from sds_clip.extras import how_to_get, missing_packages
from sds_clip.models.checkpoints.references import DEMO, DEMO_PICTURES
from sds_clip.options import (
    command,
    compute_option,
    read_settings,
    read_worker_config,
    require_tracker,
    service_options,
)

if TYPE_CHECKING:
    from sds_clip.app.settings import Settings
    from sds_clip.worker.config import WorkerConfig
    from sds_clip.worker.valkey import Valkey

logger = logging.getLogger(__name__)

_FOLDER = (Path(__file__).parents[1] / "demo").resolve()
_EXAMPLES = {
    DEMO: (_FOLDER / "data/heldout/images/ex_177_img_0.png", ("a black circle", "a lime circle")),
    DEMO_PICTURES: (_FOLDER / "emoji/snail.png", ("a snail", "a turtle")),
}
"""A picture and texts for each model that knows no photos."""
_CONTAINER = "SDS_CLIP_CONTAINER"  # the name of the container, which docker/embedded.py sets
_NICE = 10  # workers': requests come before training steps
_MARGIN_S = 10.0  # for a child to exit after its job or its requests have ended
_FREED_WITHIN_S = 5.0  # for a service left by a crash to free the port
_ASK_TIMEOUT_S = 5.0
# The service works, but its promoted weights cannot be loaded.
_CANNOT_LOAD = ("version_damaged", "model_not_ready")


@command(
    extra="jobs",
    references=True,
    examples="""\
sds-clip up
sds-clip up --model ViT-B-32/openai --data-dir /data/sds-clip --worker-device cuda:0
""",
)
@service_options
@compute_option(
    "--worker-device",
    metavar="DEVICE",
    help="Run jobs on this device (default: the one of --device, or SDS_CLIP_WORKER_DEVICE).",
)
@compute_option(
    "--worker-threads",
    type=int,
    metavar="N",
    help="Run a job with this many threads (default: half of the cores, or SDS_CLIP_WORKER_THREADS).",
)
def up(worker_device: str | None, worker_threads: int | None, **given: Any) -> int:
    """Run the whole system on this machine.

    The system is the HTTP service, a worker for fine-tuning, a worker for evaluation, a Valkey broker and a SQLite
    database. All its files are in --data-dir. A process that dies is started again.

    Ctrl-C stops the system. Running jobs write a checkpoint first, and continue from it at the next start. A second
    Ctrl-C stops everything at once.

    Without the extra `train` the system serves and evaluates, but does not fine-tune.

    To use your own Redis and PostgreSQL instead of the embedded Valkey and SQLite, set SDS_CLIP_BROKER_URL and
    SDS_CLIP_DATABASE_URL. If the service cannot start, the exit code is that of the service.
    """
    from sds_clip.app import logs
    from sds_clip.worker.valkey import Valkey

    settings = read_settings(**given)
    logs.configure(settings.log_level, settings.log_format)
    missing = missing_packages("train")
    if missing:
        logger.warning(
            "Fine-tuning is off: no worker for it is started, because %s cannot be imported; %s",
            ", ".join(missing),
            how_to_get("train"),
        )
    queues = [queue for queue in QUEUES if queue != "finetune" or not missing]
    broker = Valkey(settings.data_dir / "broker") if settings.broker_url is None else None
    shared = {
        **{name: given[name] for name in ("device", "precision", "threads", "keys_file")},
        "data_dir": settings.data_dir.absolute(),
        "database_url": settings.database_url or embedded_database(settings.data_dir),
        "broker_url": broker.url if broker else settings.broker_url,
        "worker_device": worker_device,
        "worker_threads": worker_threads,
    }
    # Check the settings before anything is started.
    config = read_worker_config(queues[0], **shared)
    require_tracker(config.log_to, f"SDS_CLIP_LOG_TO={config.log_to}")
    # Start the broker first: its lock rejects a second run over the same folder.
    with broker or contextlib.nullcontext():
        return _run(settings, config, child_environment(config, shared), broker, queues)


def _run(
    settings: Settings,
    config: WorkerConfig,
    environment: Mapping[str, str],
    broker: Valkey | None,
    queues: Sequence[str],
) -> int:
    from sds_clip.supervisor import Child, System

    address = Address(settings.host, settings.port)
    # Passed as arguments, not in the environment, because a reference may contain a comma.
    models = [word for model in settings.models for word in ("--model", model)]
    serve = _command("serve", "--host", address.host, "--port", str(address.port), *models)
    system = System(
        Child("service", serve, environment),
        [
            Child(
                f"{queue} worker",
                _command("worker", "--queue", queue),
                {**environment, **_port(config, place)},
            )
            for place, queue in enumerate(queues)
        ],
        address.is_there,
        broker,
        worker_grace_s=config.stop_grace_s + _MARGIN_S,
        service_grace_s=settings.drain_timeout_s + _MARGIN_S,
    )
    return system.run(lambda: announce(address, settings, os.environ.get(_CONTAINER)))


def _port(config: WorkerConfig, place: int) -> dict[str, str]:
    """Each worker offers its metrics at a port of its own: the configured one, then the next."""
    return {"SDS_CLIP_METRICS_PORT": str(config.metrics_port + place)} if config.metrics_port else {}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", "sds_clip", *arguments, "--supervised"]


def child_environment(config: WorkerConfig, given: Mapping[str, object]) -> dict[str, str]:
    """Variables for the children on top of the inherited environment: given options, and defaults of `up`."""
    from sds_clip.models.machine import usable_cores

    values = {
        **given,
        "worker_threads": config.threads or max(1, usable_cores() // 2),
        "worker_nice": os.environ.get("SDS_CLIP_WORKER_NICE", _NICE),
    }
    return {f"SDS_CLIP_{name.upper()}": str(value) for name, value in values.items() if value is not None}


def announce(address: Address, settings: Settings, container: str | None = None) -> None:
    """Print where the service runs, what to do next and, if it is not ready, why.

    The host of a container has neither the demo's picture nor `sds-clip`, so its commands fetch them from inside.
    """
    from sds_clip.client.connection import DEFAULT_URL

    url = "" if address.url == DEFAULT_URL else f" --url {address.url}"
    if address.problem is None:
        first = click.style(f"SDS-CLIP is ready at {address.url}", bold=True, fg="green")
    else:
        first = click.style(f"SDS-CLIP runs at {address.url}, but is not ready.", bold=True, fg="yellow")
        first += f"\n{address.problem}"
    if missing_packages("train"):
        first += f"\nIt does not fine-tune: {how_to_get('train')}, and start it again."
    click.echo(f"""
{first}
Everything is kept in the folder {settings.data_dir}. Ctrl-C stops the system.

Next, in another terminal:
  1. Match a picture:      {_match(address.url, settings, container)}
  2. Read about the API:   {address.url}/docs
  3. List the jobs:        {_program(container)} jobs list{url}
""")
    sys.stdout.flush()


def _match(url: str, settings: Settings, container: str | None) -> str:
    """A request that suits the model: the demo models know no photos."""
    lines, path, texts = [], "photo.jpg", ("a dog", "a cat")
    if example := _EXAMPLES.get(_model_of_default(settings)):
        picture, texts = example
        path = os.path.relpath(picture)
        if container:
            lines, path = [f"docker exec {container} cat {picture} |"], "-"
    lines.append(f"curl {url}/match -F {shlex.quote(f'images=@{path}')}")
    if settings.keys_file:
        lines.append('-H "Authorization: Bearer $SDS_CLIP_API_KEY"')
    lines.append(" ".join(f'-F texts="{text}"' for text in texts))
    return f" \\\n{' ' * 29}".join(lines)


def _model_of_default(settings: Settings) -> str:
    """The model that `default` serves, or that its version was trained from."""
    from sds_clip.app.errors import ConfigurationError, ServiceError
    from sds_clip.app.store.alias_names import DEFAULT

    with contextlib.suppress(ConfigurationError, ServiceError), open_store(settings) as store:
        return store.versions.get(store.aliases.get(DEFAULT).version).base or settings.models[0]
    return settings.models[0]


def _program(container: str | None) -> str:
    """How to call this program from another terminal in the same folder."""
    if container:
        return f"docker exec -e SDS_CLIP_API_KEY {container} sds-clip"
    if shutil.which("sds-clip"):
        return "sds-clip"
    return shlex.quote(os.path.relpath(Path(sys.executable).with_name("sds-clip")))


class Address:
    """A host and a free port; port 0 picks any free one.

    Raises click.ClickException if the port is taken.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = _free_port(host, port)
        self.problem: str | None = None
        """Why a running service does not serve the default model."""

    @property
    def url(self) -> str:
        """The URL for clients on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def is_there(self) -> bool:
        """Whether the service answers, or reports that the promoted version cannot be loaded.

        The second case counts as up, because only a rollback, or a job and therefore workers, can fix it. `problem`
        then has the reason.
        """
        self.problem = None
        import httpx

        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError):
            answer = httpx.get(f"{self.url}/ready", timeout=_ASK_TIMEOUT_S, trust_env=False)
            if answer.is_success:
                return True
            error = answer.json()["error"]
            if error["code"] in _CANNOT_LOAD:
                self.problem = error["message"]
                return True
        return False


def _free_port(host: str, port: int) -> int:
    deadline = time.monotonic() + _FREED_WITHIN_S
    while True:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return int(probe.getsockname()[1])
        except OSError as error:
            if isinstance(error, socket.gaierror) or time.monotonic() > deadline:
                raise click.ClickException(
                    f"The service cannot listen on {host} port {port} ({error.strerror}). Stop the program that "
                    "uses the port, or choose another --port."
                ) from error
            time.sleep(0.2)
