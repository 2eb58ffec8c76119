"""What a worker is told: one frozen value, which its processes get as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter

from app.jobs.limits import JobLimits
from app.store.states import JobKind

OWN_VARIABLES = {"device": "worker_device", "threads": "worker_threads", "nice": "worker_nice"}
"""Settings that a worker has beside a service's of the same name, for where both have one environment."""

_PREFIX = "sds_clip_"
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


@dataclass(frozen=True)
class WorkerConfig:
    """One slot on one device, and the limits that it keeps. Times are in seconds.

    An operator sets each field by SDS_CLIP_NAME, or by the variable of `OWN_VARIABLES`; `read` checks them.
    """

    broker_url: str
    database_url: str
    data_dir: Annotated[Path, AfterValidator(Path.absolute)]
    queue: Literal["finetune", "evaluate"]
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    gpu_memory_share: Annotated[float, Field(gt=0, le=1)] | None = None
    """How much of the GPU's memory a job may take, where it is shared with a service or another slot."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Torch's threads in a job; 0 leaves them as torch has them."""
    nice: Annotated[int, Field(ge=0, le=19)] = 0
    """How far jobs stand back behind other processes, such as a service on the same machine."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    dataset_roots: Annotated[tuple[Path, ...], BeforeValidator(_split)] = ()
    """Folders below which registered data sets lie."""

    lease_ttl_s: Annotated[float, Field(ge=6)] = 60.0
    stall_timeout_s: Positive = 1800.0
    """A job that takes no step for so long is killed."""
    stop_grace_s: NotNegative = 60.0
    """How long a job may take to its checkpoint when it is asked to stop."""
    watch_every_s: Positive = 1.0
    """How often the supervisor looks whether a job was cancelled or paused."""
    idle_tick_s: Positive = 5.0
    """How often an idle slot looks for jobs without being woken."""
    retry_base_s: Positive = 5.0
    """Before the second attempt; doubled for every further one, up to five minutes."""
    report_every_s: Positive = 2.0
    """How often, at most, a job tells its progress."""
    reap_every_s: Positive = 5.0
    store_timeout_s: Positive = 10.0
    keep_warm: bool = True
    """Keep a process that has imported everything, so that a job starts at once."""
    checks_datasets: bool = True
    check_ttl_s: Positive = 60.0

    limits: JobLimits = field(default_factory=JobLimits)
    max_job_bytes: Annotated[int, Field(ge=1)] = 50 * 2**30
    """Of the checkpoints and the log that a job keeps."""
    min_save_interval_s: NotNegative = 5.0
    """Between a job's checkpoints, whatever its save_every, but for the one at its end."""
    disk_reserve_bytes: Bytes = 2 * 2**30
    """Of free space; below it no checkpoint is written, and jobs pause."""

    keep_files_s: NotNegative = 7 * 24 * 3600.0
    """How long the files of a failed or cancelled job stay; of a cancelled one's checkpoints only the newest does."""
    keep_events_s: NotNegative = 30 * 24 * 3600.0
    """How long the events of an ended job stay."""

    feature_cache_bytes: Bytes = 2**30
    """How much of the features of evaluations is kept; while one uses them it may be more."""

    @property
    def kind(self) -> JobKind:
        """What its slot does."""
        return JobKind(self.queue)

    @property
    def jobs_dir(self) -> Path:
        """Where jobs work: JOB_ID/FENCE/."""
        return self.data_dir / "jobs"

    @property
    def versions_dir(self) -> Path:
        """Where versions are published."""
        return self.data_dir / "versions"

    @property
    def features_dir(self) -> Path:
        """Where evaluations keep features for those that come after."""
        return self.data_dir / "features"

    @property
    def datasets_dir(self) -> Path:
        """The root of `app.datasets.folders.DatasetFolders`."""
        return self.data_dir / "datasets"

    @classmethod
    def read(cls, queue: str, environment: Mapping[str, str], **given: object) -> "WorkerConfig":
        """The settings of an environment, under those that are given and not None, by the names of the variables.

        Raises pydantic.ValidationError for the first one that cannot be used.
        """
        values: dict[str, object] = {"data_dir": "data"}
        for name, value in environment.items():
            if name.lower().startswith(_PREFIX):
                values[name.lower().removeprefix(_PREFIX)] = value
        values |= {name: value for name, value in given.items() if value is not None}
        # SDS_CLIP_THREADS is the service's alone; the device is common to both unless the worker has its own.
        own = {"device": values.get("device", cls.device), "threads": cls.threads, "nice": cls.nice}
        own |= {name: values[variable] for name, variable in OWN_VARIABLES.items() if values.get(variable)}
        return TypeAdapter(cls).validate_python({**values, **own, "queue": queue, "limits": values})

    def dumps(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def loads(cls, text: str) -> "WorkerConfig":
        """From what `dumps` wrote."""
        values: dict[str, Any] = json.loads(text)
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in values.items() if name in known}
        if "limits" in values:
            values["limits"] = JobLimits(**values["limits"])
        values["data_dir"] = Path(values["data_dir"])
        values["dataset_roots"] = tuple(Path(root) for root in values["dataset_roots"])
        return cls(**values)
