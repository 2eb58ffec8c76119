"""The operator's settings, read from the environment (`SDS_CLIP_*`) once, where the process starts."""

import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.logs import Format


def split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[list[str], NoDecode, BeforeValidator(split)]
"""In the environment, names are separated by commas."""
Paths = Annotated[list[Path], NoDecode, BeforeValidator(split)]
"""In the environment, paths are separated by commas."""


MAX_ATTEMPTS = 3
"""A job fails after this many attempts that end without a step beyond the furthest one so far."""
MAX_INTERRUPTIONS = 100
"""The number of lapsed leases and shutdowns that a job survives."""
MAX_RUN_TIME_S = 7 * 24 * 3600.0
"""How long a job may run, over all its attempts."""

# Defaults that workers share, whose other settings are in worker/config.py.
MAX_STEPS = 10_000_000
MAX_LOG_POINTS = 500_000
MAX_KEEP_CHECKPOINTS = 20
DISK_RESERVE_BYTES = 2 * 2**30
STORE_TIMEOUT_S = 10.0


class Settings(BaseSettings):
    """Every setting of the HTTP service, with its default. `SDS_CLIP_MAX_QUEUE=512` sets `max_queue`."""

    model_config = SettingsConfigDict(env_prefix="SDS_CLIP_", extra="ignore", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    data_dir: Path = Field(Path("data"), description="Caches, versions, data sets and the files of jobs.")
    state_dir: Path | None = Field(
        None,
        description="What this process keeps to start without its database, on a disk of its own if possible: the "
        "aliases and a copy of the versions in service. Default: state/HOSTNAME-PORT in the data folder.",
    )
    database_url: str | None = Field(
        None,
        description="sqlite:////PATH or postgresql://...: jobs, data sets and versions; without it none.",
    )
    broker_url: str | None = Field(
        None, description="Wakes workers at once; without it they look every few seconds."
    )

    models: Names = Field(["demo"], min_length=1, description="References served; the first is the default.")
    allowed_models: Names = Field(
        [], description="Further references that jobs may name and that a version may lie over."
    )
    allowed_teachers: Names = Field(["demo"], description="Teachers that jobs may name.")
    device: str = "auto"
    precision: str = "auto"
    threads: int = Field(0, ge=0, description="Torch's intra-op threads; 0 is one a usable core.")
    gpu_memory_share: float | None = Field(
        None, gt=0, le=1, description="Of a GPU's memory, for a process that shares it with others."
    )

    swap_poll_s: float = Field(1.0, gt=0, description="How often the aliases are read.")
    max_versions: int = Field(8, ge=1, description="Versions kept because requests name them.")
    max_version_bytes: int = Field(2**32, ge=0, description="Memory for them, beside what they share.")
    version_wait_s: float = Field(
        10.0, ge=0, description="How long a request waits for its version, then 503."
    )

    max_batch_size: int = Field(32, ge=1, description="Images, and texts, in one forward.")
    max_queue: int = Field(2048, ge=1, description="Items (images and texts) waiting before 429.")
    decode_threads: int = Field(0, ge=0, description="Image decoders; 0 is one a usable core.")
    max_decode_bytes: int = Field(
        0,
        ge=0,
        description="Memory for all images being decoded; 0 is a quarter of the machine's or the container's.",
    )
    deadline_s: float = Field(60.0, gt=0, description="A request not computed by then is a 504.")
    drain_timeout_s: float = Field(60.0, ge=0, description="How long SIGTERM waits for accepted requests.")
    text_cache_size: int = Field(16_384, ge=0, description="Text features kept in memory.")
    class_cache_bytes: int = Field(2**30, ge=0, description="Class weights kept on disk.")
    class_wait_s: float = Field(
        3.0, ge=0, description="How long /classify waits for a set of more than 512 prompts, then 503."
    )

    max_body_bytes: int = Field(32 * 2**20, ge=1024)
    max_buffered_bytes: int = Field(512 * 2**20, ge=1024, description="Bodies in memory over all requests.")
    body_timeout_s: float = Field(
        30.0, gt=0, description="Of a whole body; of an upload, how long it may fall behind its minimum rate."
    )
    max_images: int = Field(64, ge=1)
    max_texts: int = Field(1024, ge=1)
    max_labels: int = Field(4096, ge=1)
    max_templates: int = Field(128, ge=1)
    max_text_chars: int = Field(4096, ge=1)
    max_image_bytes: int = Field(20 * 2**20, ge=1)
    max_image_pixels: int = Field(64_000_000, ge=1, le=89_478_485)

    dataset_roots: Paths = Field([], description="Folders below which callers may register data sets.")
    max_upload_bytes: int = Field(50 * 2**30, ge=1024, description="Of one data set.")
    min_upload_bytes_per_s: int = Field(
        65_536, ge=1, description="An upload that falls body_timeout_s behind this rate is a 408."
    )
    max_upload_time_s: float = Field(21_600.0, gt=0, description="An upload that takes longer is a 408.")
    max_uploads: int = Field(4, ge=1, description="Data sets received at the same time, then 429.")
    max_open_jobs: int = Field(1000, ge=1, description="Jobs that have not ended, then 429.")
    max_steps: int = Field(MAX_STEPS, ge=1, description="Of one fine-tuning job.")
    max_log_points: int = Field(
        MAX_LOG_POINTS, ge=1, description="Of one job's curves: its steps by its log_every."
    )
    max_keep_checkpoints: int = Field(MAX_KEEP_CHECKPOINTS, ge=1, description="Of one job.")
    disk_reserve_bytes: int = Field(
        DISK_RESERVE_BYTES,
        ge=0,
        description="Of free space under data_dir; below it nothing new is accepted (507), and jobs pause.",
    )
    max_attempts: int = Field(
        MAX_ATTEMPTS, ge=1, description="Of a job whose process dies each time at the same step."
    )
    max_interruptions: int = Field(
        MAX_INTERRUPTIONS, ge=0, description="Lapsed leases and shutdowns of its worker that a job survives."
    )
    max_run_time_s: float = Field(
        MAX_RUN_TIME_S, gt=0, description="How long a job may run, over all its attempts."
    )
    max_event_streams: int = Field(64, ge=1, description="Connections that follow a job, then 429.")
    store_threads: int = Field(8, ge=1, description="Requests that use the database at the same time.")
    store_timeout_s: float = Field(
        STORE_TIMEOUT_S, gt=0, description="How long one waits for the database, then 503."
    )

    allow_url_images: bool = False
    url_timeout_s: float = Field(10.0, gt=0)
    url_max_redirects: int = Field(3, ge=0)

    keys_file: Path | None = Field(None, description="JSON with hashed API keys; without it loopback only.")
    allowed_hosts: Names = Field([], description="Host names beside the loopback ones, without keys.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Format = Field("auto", description="text, json, or auto: text on a terminal, else JSON.")

    @property
    def own_state_dir(self) -> Path:
        """`state_dir`, or the default, which no other process on this machine uses."""
        return self.state_dir or self.data_dir / "state" / f"{socket.gethostname()}-{self.port}"

    @model_validator(mode="after")
    def _largest_request_fits(self) -> Self:
        if self.max_queue < self.max_images + self.max_texts:
            raise ValueError(
                "max_queue is less than max_images + max_texts, so the largest request would starve"
            )
        return self
