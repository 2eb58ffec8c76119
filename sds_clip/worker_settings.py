"""What an operator can set for workers, beside the settings that they share with the service."""

from pydantic import Field

from app.settings import Settings
from worker.config import WorkerConfig


class WorkerSettings(Settings):
    """`SDS_CLIP_STOP_GRACE_S=120` sets `stop_grace_s`."""

    worker_device: str | None = Field(None, description="Where jobs are computed; None for `device`.")
    worker_threads: int = Field(0, ge=0, description="Torch's threads in a job; 0 leaves torch's own number.")
    worker_nice: int | None = Field(
        None, ge=0, le=19, description="How far jobs stand back behind the service; `up` gives them 10."
    )
    lease_ttl_s: float = Field(WorkerConfig.lease_ttl_s, ge=6)
    stall_timeout_s: float = Field(WorkerConfig.stall_timeout_s, gt=0)
    stop_grace_s: float = Field(WorkerConfig.stop_grace_s, ge=0)
    keep_warm: bool = Field(WorkerConfig.keep_warm)
    checks_datasets: bool = Field(WorkerConfig.checks_datasets)
    keep_files_s: float = Field(WorkerConfig.keep_files_s, ge=0)
    keep_events_s: float = Field(WorkerConfig.keep_events_s, ge=0)
    feature_cache_bytes: int = Field(WorkerConfig.feature_cache_bytes, ge=0)
