"""A worker's configuration: one frozen value, passed to its processes as JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from sds_clip.app.logs import Format
from sds_clip.app.retention.policy import Rules
from sds_clip.app.retired import RETIRED
from sds_clip.app.settings import DISK_RESERVE_BYTES, MAX_STORED_BYTES_PER_KEY, STORE_TIMEOUT_S, split
from sds_clip.app.store.leases import RETRY_BASE_S
from sds_clip.app.store.states import JobKind

# Variables that override the common ones for a worker, where service and worker share an environment.
OWN_VARIABLES = {"device": "worker_device", "threads": "worker_threads", "nice": "worker_nice"}

_PREFIX = "sds_clip_"
CAPTION_CACHE_BYTES = 20 * 2**30
"""Size of the jobs' cache of teachers' caption embeddings: 5,000 captions of FLUX.1-dev, 180,000 of Stable Diffusion
1.5. What was used longest ago goes; a caption that is needed again loads the teacher's text encoders again."""
Positive = Annotated[float, Field(gt=0)]
_MIN_LEASE_S = 20.0
_MIN_TURN_S = 60.0
NotNegative = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]


def _long_enough(lease_ttl_s: float) -> float:
    """The duration of a lease. Raises ValueError if it is too short for a process at work to renew it in time."""
    if not lease_ttl_s >= _MIN_LEASE_S:
        raise ValueError(
            f"The value must be at least {_MIN_LEASE_S:g}. A job's process renews its lease every sixth of this time, "
            "and a busy trainer, disk or database delays a renewal by seconds. A shorter lease would be lost while "
            "its job still runs."
        )
    return lease_ttl_s


def _worth_its_start(max_turn_s: float) -> float:
    """The duration of a turn. Raises ValueError if a job would spend most of it on starting again."""
    if max_turn_s != 0 and not max_turn_s >= _MIN_TURN_S:
        raise ValueError(
            f"The value must be at least {_MIN_TURN_S:g}, or 0 to let every job run to its end. A job that goes on in "
            "its next turn starts a process and loads its models again."
        )
    return max_turn_s


def _alike(device: str) -> str:
    """A device, or a list of devices that processes of one job can share. Raises ValueError."""
    each = device.replace(" ", "").split(",")
    if (
        len(each) > 1
        and set(each) != {"cpu"}
        and not (len(set(each)) == len(each) and all(re.fullmatch(r"cuda:\d+", one) for one in each))
    ):
        raise ValueError("Several devices must be different GPUs, such as cuda:0,cuda:1, or all be cpu.")
    return ",".join(each)


def _weights(given: object) -> object:
    """Read weights such as `team-a=3,team-b=0.5`. Raises ValueError."""
    if not isinstance(given, str):
        return given
    weights = dict[str, float]()
    for name, _, weight in (each.rpartition("=") for each in given.split(",") if each.strip()):
        if not (name := name.strip()):
            raise ValueError("Write a name and a weight for each key, such as team-a=3,team-b=0.5.")
        if name in weights:
            raise ValueError(f"The key {name} has two weights.")
        weights[name] = float(weight)
        if not 0.001 <= weights[name] <= 1000:
            raise ValueError(f"The weight of {name} must be from 0.001 to 1000.")
    return weights


@dataclass(frozen=True)
class WorkerConfig:
    """One slot on one device, and its limits. Times are in seconds.

    Each setting is read from SDS_CLIP_NAME, or from its variable in `OWN_VARIABLES`; `read` validates them.
    """

    broker_url: str
    database_url: str
    data_dir: Annotated[Path, AfterValidator(Path.absolute)]
    queue: Literal["finetune", "evaluate", "check"]
    device: Annotated[str, AfterValidator(_alike)] = "auto"
    """auto, cpu, cuda or cuda:N. A slot whose jobs may use several has a list, such as cuda:0,cuda:1."""
    gpu_memory_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of the GPU's memory a job may take, where a service or another slot uses the same GPU."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Torch's threads in a job; 0 keeps torch's default."""
    nice: Annotated[int, Field(ge=0, le=19)] = 0
    """Niceness of jobs, so that a service on the same machine comes first."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Format = "auto"
    """text, json, or auto: text on a terminal, JSON elsewhere."""
    log_to: Literal["tensorboard", "mlflow"] | None = None
    """tensorboard or mlflow: send what training jobs log there too. TensorBoard's event files are in the folder
    tensorboard of the data folder. MLflow, at MLFLOW_TRACKING_URI, also lists the versions and aliases."""
    dataset_roots: Annotated[tuple[Path, ...], BeforeValidator(split)] = ()
    """Folders that registered data sets may lie in."""

    lease_ttl_s: Annotated[float, AfterValidator(_long_enough)] = 60.0
    """How long a job stays with a worker that does not renew its lease. At least 20."""
    stop_grace_s: NotNegative = 60.0
    """Time a job has to reach its checkpoint when asked to stop."""
    share_weights: Annotated[Mapping[str, float], BeforeValidator(_weights)] = field(default_factory=dict)
    """How the API keys share the workers' time while several have jobs that wait, such as `team-a=3,team-b=0.5`. A key
    that is not named has the weight 1. A weight is from 0.001 to 1000."""
    max_turn_s: Annotated[float, AfterValidator(_worth_its_start)] = 3600.0
    """A job that has come on for this long stops at a checkpoint, and continues later, if a job of another key waits
    whose turn it is. At least 60. 0 lets every job run to its end."""
    store_timeout_s: Positive = STORE_TIMEOUT_S
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """The port that offers the worker's metrics to Prometheus. 0 offers none. `sds-clip up` gives its second worker the
    next port."""
    metrics_host: str = "127.0.0.1"
    """The address that the worker's metrics are offered at. They need no key."""
    keep_warm: bool = True
    """Keep a process that has imported everything, so that a job starts at once. Costs about 0.5 GB."""
    disk_reserve_bytes: Bytes = DISK_RESERVE_BYTES
    """Free space to keep; below it no checkpoint is written, and jobs pause."""

    max_stored_bytes_per_key: Bytes = MAX_STORED_BYTES_PER_KEY
    """Limit on the data sets of one API key; an archive that unpacks to more is rejected."""

    keep_files_s: NotNegative = 7 * 24 * 3600.0
    """How long files of failed and cancelled jobs stay; of a cancelled one's checkpoints only the newest."""
    retention: Rules = field(default_factory=Rules)

    # No settings, but a test or a benchmark changes them.
    idle_tick_s: float = 5.0
    """How often an idle slot looks for jobs without a wake-up."""
    keep_events_s: float = 30 * 24 * 3600.0
    """How long the events of an ended job are kept."""
    stall_timeout_s: float = 1800.0
    """A job that takes no step for this long is killed."""
    watch_every_s: float = 1.0
    """How often the supervisor checks whether a job was cancelled or paused."""
    retry_base_s: float = RETRY_BASE_S
    """Delay before the second attempt; doubled for each further one, up to five minutes."""
    report_every_s: float = 2.0
    """Minimum time between two progress reports of a job."""
    reap_every_s: float = 5.0
    checks_datasets: bool = True
    max_job_bytes: int = 50 * 2**30
    """Limit on the checkpoints and the log that a job keeps; older checkpoints go first. While one is written,
    the one before stays beside it."""
    min_save_interval_s: float = 5.0
    """Minimum time between a job's checkpoints, whatever its save_every; the last one is always written."""
    feature_cache_bytes: int = 2**30
    """Size of the evaluations' feature cache; the rows used least recently are dropped."""

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self.device.split(","))

    @property
    def main_device(self) -> str:
        """The device of a job that uses one, and of the first process of any other."""
        return self.devices[0]

    @property
    def kind(self) -> JobKind:
        return JobKind(self.queue)

    @property
    def of_checks(self) -> "WorkerConfig":
        """For the slot that checks data sets, beside the slot of the device. A check runs to its end, on the CPU."""
        return replace(
            self,
            queue="check",
            device="cpu",
            gpu_memory_share=None,
            threads=0,
            max_turn_s=0.0,
            keep_warm=False,
        )

    @property
    def jobs_dir(self) -> Path:
        return self.data_dir / "jobs"

    @property
    def versions_dir(self) -> Path:
        return self.data_dir / "versions"

    @property
    def features_dir(self) -> Path:
        return self.data_dir / "features"

    @property
    def datasets_dir(self) -> Path:
        """Root of `sds_clip.app.datasets.folders.DatasetFolders`."""
        return self.data_dir / "datasets"

    @classmethod
    def read(cls, queue: str, environment: Mapping[str, str], **given: object) -> "WorkerConfig":
        """Read the settings from an environment. Keyword arguments (the variables' names) take precedence unless None.

        Raises pydantic.ValidationError.
        """
        values: dict[str, object] = {"data_dir": "data"}
        for name, value in environment.items():
            setting = name.lower().removeprefix(_PREFIX)
            if name.lower().startswith(_PREFIX) and setting not in RETIRED:
                values[setting] = value
        values |= {name: value for name, value in given.items() if value is not None}
        # SDS_CLIP_THREADS applies to the service only; the device to both unless the worker has its own.
        own = {"device": values.get("device", cls.device), "threads": cls.threads, "nice": cls.nice}
        own |= {name: values[variable] for name, variable in OWN_VARIABLES.items() if values.get(variable)}
        return TypeAdapter(cls).validate_python({**values, **own, "queue": queue, "retention": values})

    def dumps(self) -> str:
        return json.dumps(asdict(self), default=str)

    @classmethod
    def loads(cls, text: str) -> "WorkerConfig":
        values: dict[str, Any] = json.loads(text)
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        if "retention" in values:
            values["retention"] = Rules(**values["retention"])
        values["data_dir"] = Path(values["data_dir"])
        values["dataset_roots"] = tuple(Path(root) for root in values["dataset_roots"])
        return cls(**values)
