"""What a worker is told: one frozen value, which its processes get as JSON."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from app.jobs.limits import JobLimits
from app.store.states import JobKind


@dataclass(frozen=True)
class WorkerConfig:
    """One slot on one device, and the limits that it keeps. Times are in seconds."""

    broker_url: str
    database_url: str
    data_dir: Path
    queue: Literal["finetune", "evaluate"]
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    gpu_memory_share: float | None = None
    """How much of the GPU's memory a job may take, where it is shared with a service or another slot."""
    threads: int = 0
    """Torch's threads in a job; 0 leaves them as torch has them."""
    dataset_roots: tuple[Path, ...] = ()
    """Folders below which registered data sets lie."""

    lease_ttl_s: float = 60.0
    stall_timeout_s: float = 1800.0
    """A job that takes no step for so long is killed."""
    stop_grace_s: float = 60.0
    """How long a job may take to its checkpoint when it is asked to stop."""
    watch_every_s: float = 1.0
    """How often the supervisor looks whether a job was cancelled or paused."""
    idle_tick_s: float = 5.0
    """How often an idle slot looks for jobs without being woken."""
    retry_base_s: float = 5.0
    """Before the second attempt; doubled for every further one, up to five minutes."""
    report_every_s: float = 2.0
    """How often, at most, a job tells its progress."""
    reap_every_s: float = 5.0
    store_timeout_s: float = 10.0
    keep_warm: bool = True
    """Keep a process that has imported everything, so that a job starts at once."""
    checks_datasets: bool = True
    check_ttl_s: float = 60.0

    limits: JobLimits = field(default_factory=JobLimits)
    max_job_bytes: int = 50 * 2**30
    """Of the checkpoints and the log that a job keeps."""
    min_save_interval_s: float = 5.0
    """Between a job's checkpoints, whatever its save_every, but for the one at its end."""
    disk_reserve_bytes: int = 2 * 2**30
    """Of free space; below it no checkpoint is written, and jobs pause."""

    keep_files_s: float = 7 * 24 * 3600.0
    """How long the files of a failed or cancelled job stay; of a cancelled one's checkpoints only the newest does."""
    keep_events_s: float = 30 * 24 * 3600.0
    """How long the events of an ended job stay."""

    feature_cache_bytes: int = 2**30
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
