"""The operator's settings, read from the environment (`SDS_CLIP_*`) once, where the process starts."""

import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, IPvAnyNetwork, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.logs import Format


def split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Names = Annotated[list[str], NoDecode, BeforeValidator(split)]
"""In the environment, names are separated by commas."""
Paths = Annotated[list[Path], NoDecode, BeforeValidator(split)]
"""In the environment, paths are separated by commas."""
Networks = Annotated[list[IPvAnyNetwork], NoDecode, BeforeValidator(split)]
"""In the environment, networks are separated by commas. An address is the network of itself."""


def _host_and_port(value: object) -> object:
    if not isinstance(value, str):
        return value
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError("Write the address as HOST:PORT, such as 127.0.0.1:9102 or [::1]:9102")
    return host.removeprefix("[").removesuffix("]"), int(port)


Address = Annotated[tuple[str, int] | None, NoDecode, BeforeValidator(_host_and_port)]
"""A host and a port, or None. In the environment, a colon is between them."""

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
MAX_STORED_BYTES_PER_KEY = 100 * 2**30
STORE_TIMEOUT_S = 10.0


class Settings(BaseSettings):
    """All settings of the HTTP service, with their defaults. `SDS_CLIP_MAX_QUEUE=512` sets `max_queue`."""

    model_config = SettingsConfigDict(env_prefix="SDS_CLIP_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="The address that the service listens on.")
    port: int = Field(
        8000, ge=0, le=65535, description="The port that the service listens on. 0 takes a free port."
    )
    metrics_address: Address = Field(
        None,
        description="An address of their own for /metrics, /health and /ready, as HOST:PORT. It has no keys and no "
        "limits, so publish it to your monitoring alone. At the service's own address, /metrics then needs a key.",
    )
    data_dir: Path = Field(
        Path("data"), description="The folder for caches, versions, data sets and the files of jobs."
    )
    state_dir: Path | None = Field(
        None,
        description="The folder in which this process keeps what it needs to start without its database: the "
        "aliases and a copy of the versions in service. Use a separate disk if possible. Processes may share it. "
        "The default is state/HOSTNAME-PORT in the data folder.",
    )
    database_url: str | None = Field(
        None,
        description="The URL of the database for jobs, data sets and versions: sqlite:////PATH or "
        "postgresql://USER:PASSWORD@HOST/NAME. Without it, the service keeps none of these.",
    )
    broker_url: str | None = Field(
        None,
        description="The URL of the broker, which wakes workers as soon as a job arrives. Without it, workers "
        "look for jobs every few seconds.",
    )

    models: Names = Field(
        ["demo"],
        min_length=1,
        description="The references of the models to serve. The first one is the default model.",
    )
    allowed_models: Names = Field(
        [], description="Further references that jobs may name and that versions may be based on."
    )
    allowed_teachers: Names = Field(["demo"], description="The teachers that jobs may name.")
    device: str = Field("auto", description="The device for the models: auto, cpu, cuda or cuda:N.")
    precision: str = Field(
        "auto", description="The precision of the models: auto, float32, bfloat16 or float16."
    )
    threads: int = Field(
        0,
        ge=0,
        description="The number of threads that PyTorch uses within an operation. 0 means one per usable core.",
    )
    gpu_memory_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="The share of the GPU's memory, up to 1, that this process may use. Set it if processes "
        "share a GPU.",
    )

    swap_poll_s: float = Field(
        0.25, gt=0, description="The number of seconds between two readings of the aliases."
    )
    max_versions: int = Field(
        10_000, ge=1, description="The largest number of versions kept in memory because requests name them."
    )
    max_version_bytes: int = Field(
        2**32,
        ge=0,
        description="The largest number of bytes that these versions may take, not counting weights that they "
        "share.",
    )
    max_version_loads_per_key: int = Field(
        32,
        ge=1,
        description="The largest number of versions that are being loaded, or wait for it, because one API key named "
        "them.",
    )
    version_wait_s: float = Field(
        10.0,
        ge=0,
        description="The number of seconds that a request waits for its version to load. Then it gets a 503.",
    )

    max_batch_size: int = Field(
        32, ge=1, description="The largest number of images, or of texts, in one forward pass."
    )
    max_queue: int = Field(
        4096,
        ge=1,
        description="The largest number of images and texts that may wait. Further requests get a 429.",
    )
    decode_threads: int = Field(
        0, ge=0, description="The number of threads that decode images. 0 means one per usable core."
    )
    max_decode_bytes: int = Field(
        0,
        ge=0,
        description="The largest number of bytes for all images that are being decoded. 0 means a quarter of the "
        "memory of the machine or container.",
    )
    deadline_s: float = Field(
        60.0,
        gt=0,
        description="The number of seconds within which a request must be computed. Later requests get a 504.",
    )
    drain_timeout_s: float = Field(
        60.0,
        ge=0,
        description="The number of seconds that the service waits for accepted requests after SIGTERM.",
    )
    text_cache_size: int = Field(
        16_384, ge=0, description="The largest number of texts whose features are kept in memory."
    )
    class_cache_bytes: int = Field(
        2**30, ge=0, description="The largest number of bytes of class weights kept on disk."
    )
    class_wait_s: float = Field(
        3.0,
        ge=0,
        description="The number of seconds that /classify waits for a label set of more than 512 prompts to be "
        "encoded. Then it answers with 503.",
    )

    max_body_bytes: int = Field(
        32 * 2**20,
        ge=1024,
        description="The largest number of bytes in a request body. Uploads have a limit of their own.",
    )
    max_buffered_bytes: int = Field(
        512 * 2**20,
        ge=1024,
        description="The largest number of bytes that all request bodies may hold in memory at once.",
    )
    body_timeout_s: float = Field(
        30.0,
        gt=0,
        description="The number of seconds within which a body must arrive. An upload may fall this "
        "far behind its minimum rate.",
    )
    max_images: int = Field(64, ge=1, description="The largest number of images in one request.")
    max_texts: int = Field(2048, ge=1, description="The largest number of texts in one request.")
    max_labels: int = Field(4096, ge=1, description="The largest number of labels in one request.")
    max_templates: int = Field(128, ge=1, description="The largest number of templates in one request.")
    max_text_chars: int = Field(4096, ge=1, description="The largest number of characters in one text.")
    max_image_bytes: int = Field(
        20 * 2**20, ge=1, description="The largest number of bytes in one image file."
    )
    max_image_pixels: int = Field(
        64_000_000, ge=1, le=89_478_485, description="The largest number of pixels in one image."
    )

    dataset_roots: Paths = Field([], description="The folders in which callers may register data sets.")
    max_upload_bytes: int = Field(
        50 * 2**30, ge=1024, description="The largest number of bytes in one uploaded data set."
    )
    min_upload_bytes_per_s: int = Field(
        65_536,
        ge=1,
        description="The lowest rate of an upload, in bytes per second. An upload that falls behind it by "
        "body_timeout_s gets a 408.",
    )
    max_upload_time_s: float = Field(
        21_600.0, gt=0, description="The number of seconds that an upload may take. Then it gets a 408."
    )
    max_uploads: int = Field(
        4, ge=1, description="The largest number of uploads at the same time. Further uploads get a 429."
    )
    max_open_jobs: int = Field(
        1000, ge=1, description="The largest number of unfinished jobs. Further jobs get a 429."
    )
    max_steps: int = Field(MAX_STEPS, ge=1, description="The largest number of steps in one fine-tuning job.")
    max_log_points: int = Field(
        MAX_LOG_POINTS,
        ge=1,
        description="The largest number of points in the curves of one job: its steps divided by its log_every.",
    )
    max_keep_checkpoints: int = Field(
        MAX_KEEP_CHECKPOINTS, ge=1, description="The largest number of checkpoints that one job may keep."
    )
    disk_reserve_bytes: int = Field(
        DISK_RESERVE_BYTES,
        ge=0,
        description="The number of bytes to keep free on the disk of data_dir. Below it, the service accepts "
        "nothing new (507), and jobs pause.",
    )
    max_attempts: int = Field(
        MAX_ATTEMPTS,
        ge=1,
        description="The number of attempts in a row whose process may die without getting further. Then the job "
        "fails.",
    )
    max_interruptions: int = Field(
        MAX_INTERRUPTIONS,
        ge=0,
        description="The number of times that a job may lose its worker, because a lease lapsed or the worker "
        "shut down.",
    )
    max_run_time_s: float = Field(
        MAX_RUN_TIME_S, gt=0, description="The number of seconds that a job may run, over all its attempts."
    )
    max_event_streams: int = Field(
        64, ge=1, description="The largest number of connections that follow jobs. Further ones get a 429."
    )
    store_threads: int = Field(
        8, ge=1, description="The largest number of requests that use the database at the same time."
    )
    store_timeout_s: float = Field(
        STORE_TIMEOUT_S,
        gt=0,
        description="The number of seconds that a request waits for the database. Then it gets a 503.",
    )

    max_requests_per_key: int = Field(
        64,
        ge=1,
        description="The largest number of requests of one API key that a process answers at the same time, with its "
        "event streams and uploads. Further ones get a 429, like all that exceed a limit per key.",
    )
    max_requests_per_s_per_key: int = Field(
        100,
        ge=1,
        description="The rate, in requests per second, at which a process answers one API key. Answers that come "
        "faster wait. Images and texts that are matched, classified or embedded do not count, since they have a limit "
        "of their own.",
    )
    max_items_per_s_per_key: int = Field(
        2048,
        ge=1,
        description="The largest number of images and texts that one API key may send to a process per second. A "
        "larger request is accepted, and the key then waits.",
    )
    max_queue_per_key: int = Field(
        3072,
        ge=1,
        description="The largest number of images and texts of one API key that may wait in a process, out of "
        "max_queue. A larger request is accepted when the key has no other.",
    )
    max_buffered_bytes_per_key: int = Field(
        128 * 2**20,
        ge=1024,
        description="The largest number of bytes that the request bodies of one API key may hold in the memory of a "
        "process, out of max_buffered_bytes.",
    )
    max_body_bytes_per_s_per_key: int = Field(
        64 * 2**20,
        ge=1024,
        description="The rate, in bytes per second, at which a process reads the request bodies of one API key. Those "
        "that come faster wait.",
    )
    max_event_streams_per_key: int = Field(
        16,
        ge=1,
        description="The largest number of connections with which one API key may follow jobs, out of "
        "max_event_streams.",
    )
    max_uploads_per_key: int = Field(
        2,
        ge=1,
        description="The largest number of uploads of one API key at the same time, out of max_uploads.",
    )
    max_open_jobs_per_key: int = Field(
        100,
        ge=1,
        description="The largest number of unfinished jobs of one API key, in the database.",
    )
    max_stored_bytes_per_key: int = Field(
        MAX_STORED_BYTES_PER_KEY,
        ge=0,
        description="The largest number of bytes that all uploaded data sets of one API key may have, in the database. "
        "An archive counts with the size of its files once it has been checked.",
    )

    keep_jobs_s: float | None = Field(
        None,
        ge=0,
        description="The number of seconds after its end for which a fine-tuning job is kept, with its events, curves "
        "and files. A job whose version is kept stays. Without a value, all are kept.",
    )
    keep_evaluations_s: float | None = Field(
        None,
        ge=0,
        description="The number of seconds after its end for which an evaluation is kept, with its results and report. "
        "Without a value, all are kept.",
    )
    keep_versions_s: float | None = Field(
        None,
        ge=0,
        description="The number of seconds for which a version is kept that nothing uses: no alias, no rollback, no "
        "open job, no serving process, and no version that is based on it. Without a value, all are kept.",
    )
    keep_datasets_s: float | None = Field(
        None,
        ge=0,
        description="The number of seconds after the end of the last job that used it for which a data set is kept. "
        "Without a value, all are kept.",
    )
    keep_rollbacks: int | None = Field(
        None,
        ge=0,
        description="The number of earlier versions that are kept for each alias, so that rollbacks may return to "
        "them. Without a value, all are kept.",
    )

    allow_url_images: bool = Field(
        False, description="Whether the service fetches images from URLs in requests."
    )
    url_timeout_s: float = Field(
        10.0,
        gt=0,
        description="The number of seconds within which an image's URL must have sent its whole answer.",
    )
    url_max_redirects: int = Field(
        3, ge=0, description="The largest number of redirects that are followed for an image's URL."
    )

    keys_file: Path | None = Field(
        None,
        description="The JSON file with the hashed API keys. Without it, the service listens on loopback "
        "addresses only.",
    )
    console: bool = Field(
        True, description="Whether the service has a console at `/`: a page in the browser over this API."
    )
    shared_workspace: bool = Field(
        False,
        description="Whether all keys share one workspace. By default, a key without the scope admin sees and changes "
        "only what it made.",
    )
    session_hours: float = Field(
        12.0,
        gt=0,
        le=8760,
        description="The number of hours after which a browser that signed in with a key must sign in again.",
    )
    allowed_hosts: Names = Field(
        [], description="Host names, besides the loopback ones, that a service without keys answers to."
    )
    cors_origins: Names = Field(
        [],
        description="The origins whose web pages may call the service, such as https://app.example.org. With keys, * "
        "stands for all.",
    )
    trusted_proxies: Networks = Field(
        ["127.0.0.1", "::1"],
        validate_default=True,
        description="The addresses and networks of the proxies in front of the service. Only they may name the "
        "caller's address, which is logged, by X-Forwarded-For, and its scheme by X-Forwarded-Proto. Over https, the "
        "cookies of sessions are secure.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The lowest level of messages that are logged."
    )
    log_format: Format = Field(
        "auto",
        description="The format of the log: text, json or auto. auto means text on a terminal and JSON elsewhere.",
    )

    @property
    def own_state_dir(self) -> Path:
        """`state_dir`, or the default, which no other process on this machine uses."""
        return self.state_dir or self.data_dir / "state" / f"{socket.gethostname()}-{self.port}"

    @model_validator(mode="after")
    def _largest_request_fits(self) -> Self:
        if self.max_queue < self.max_images + self.max_texts:
            raise ValueError(
                "max_queue is less than max_images + max_texts, so the largest request could never run; raise "
                "max_queue"
            )
        return self

    @model_validator(mode="after")
    def _pages_are_named_without_keys(self) -> Self:
        if "*" in self.cors_origins and self.keys_file is None:
            raise ValueError(
                "cors_origins is *, so any web page could use a service without keys; name the origins, or set "
                "keys_file"
            )
        return self
