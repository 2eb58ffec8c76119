"""The operator's settings, read from the environment (`SDS_CLIP_*`) once, where the process starts."""

import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, IPvAnyNetwork, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sds_clip.app.logs import Format


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

MAX_EVENT_STREAMS = 64
"""The largest number of connections that follow jobs."""
MAX_TEXTS = 2048
"""The largest number of texts in one request."""

# Defaults that workers share, whose other settings are in worker/config.py.
DISK_RESERVE_BYTES = 2 * 2**30
MAX_STORED_BYTES_PER_KEY = 100 * 2**30
STORE_TIMEOUT_S = 10.0


class Settings(BaseSettings):
    """All settings of the HTTP service, with their defaults. `SDS_CLIP_MAX_QUEUE=512` sets `max_queue`.

    What follows from another setting is a property, and what never changes a constant beside the code that uses it.
    app/retired.py names what was a setting.
    """

    model_config = SettingsConfigDict(
        env_prefix="SDS_CLIP_", extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    host: str = "127.0.0.1"
    """The address that the service listens on."""
    port: int = Field(8000, ge=0, le=65535)
    """The port that the service listens on. 0 takes a free port."""
    metrics_address: Address = None
    """An address of their own for /metrics, /health and /ready, as HOST:PORT. It has no keys and no limits, so publish
    it to your monitoring alone. At the service's own address, /metrics then needs a key."""
    data_dir: Path = Path("data")
    """The folder for caches, versions, data sets and the files of jobs."""
    state_dir: Path | None = None
    """The folder in which this process keeps what it needs to start without its database: the aliases and a copy of the
    versions in service. Use a separate disk if possible. Processes may share it. The default is state/HOSTNAME-PORT in
    the data folder."""
    database_url: str | None = None
    """The URL of the database for jobs, data sets and versions: sqlite:////PATH or
    postgresql://USER:PASSWORD@HOST/NAME. Without it, the service keeps none of these."""
    broker_url: str | None = None
    """The URL of the broker, which wakes workers as soon as a job arrives. Without it, workers look for jobs every few
    seconds."""

    models: Names = Field(["demo"], min_length=1)
    """The references of the models to serve. The first one is the default model."""
    allowed_models: Names = []
    """Further references that jobs may name and that versions may be based on."""
    allowed_teachers: Names = ["demo"]
    """The teachers that jobs may name."""
    device: str = "auto"
    """The device for the models: auto, cpu, cuda or cuda:N."""
    precision: str = "auto"
    """The precision of the models: auto, float32, bfloat16 or float16. In float32, JPEGs are decoded in full; otherwise
    large ones are decoded at a half, a quarter or an eighth of their size. +full or +scaled after the precision, such
    as bfloat16+full, chooses one of the two."""
    threads: int = Field(0, ge=0)
    """The number of threads that PyTorch uses within an operation, and of those that decode images. 0 means one per
    usable core."""
    gpu_memory_share: float | None = Field(None, gt=0, le=1)
    """The share of the GPU's memory, up to 1, that this process may use. Set it if processes share a GPU."""

    max_version_bytes: int = Field(2**32, ge=0)
    """The largest number of bytes that versions may take which are in memory because requests name them, not counting
    weights that they share."""

    max_batch_size: int = Field(32, ge=1)
    """The largest number of images, or of texts, in one forward pass."""
    max_queue: int = Field(4096, ge=1)
    """The largest number of images and texts that may wait. Further requests get a 429."""
    max_decode_bytes: int = Field(0, ge=0)
    """The largest number of bytes for all images that are being decoded. 0 means a quarter of the memory of the machine
    or container."""
    deadline_s: float = Field(60.0, gt=0)
    """The number of seconds within which a request must be computed. Later requests get a 504."""
    drain_timeout_s: float = Field(60.0, ge=0)
    """The number of seconds that the service waits for accepted requests after SIGTERM."""

    max_body_bytes: int = Field(32 * 2**20, ge=1024)
    """The largest number of bytes in a request body. Uploads have a limit of their own. An image file may have five
    eighths of it."""
    max_buffered_bytes: int = Field(512 * 2**20, ge=1024)
    """The largest number of bytes that all request bodies may hold in memory at once."""
    max_images: int = Field(64, ge=1)
    """The largest number of images in one request."""
    max_image_pixels: int = Field(64_000_000, ge=1, le=89_478_485)
    """The largest number of pixels in one image."""

    dataset_roots: Paths = []
    """The folders in which callers may register data sets."""
    max_upload_bytes: int = Field(50 * 2**30, ge=1024)
    """The largest number of bytes in one uploaded data set."""
    max_open_jobs: int = Field(1000, ge=1)
    """The largest number of unfinished jobs. Further jobs get a 429."""
    disk_reserve_bytes: int = Field(DISK_RESERVE_BYTES, ge=0)
    """The number of bytes to keep free on the disk of data_dir. Below it, the service accepts nothing new (507), and
    jobs pause."""
    max_attempts: int = Field(MAX_ATTEMPTS, ge=1)
    """The number of attempts in a row whose process may die without getting further. Then the job fails."""
    max_run_time_s: float = Field(MAX_RUN_TIME_S, gt=0)
    """The number of seconds that a job may run, over all its attempts."""
    store_timeout_s: float = Field(STORE_TIMEOUT_S, gt=0)
    """The number of seconds that a request waits for the database. Then it gets a 503."""

    key_share: float = Field(0.25, gt=0, le=1)
    """The share of max_buffered_bytes that the request bodies of one API key may hold in a process, of its 64
    connections that follow jobs, and of 256 requests at the same time, with event streams and uploads. Further ones get
    a 429, like all that exceed a limit per key."""
    max_requests_per_s_per_key: int = Field(100, ge=1)
    """The rate, in requests per second, at which a process answers one API key. Answers that come faster wait. Images
    and texts that are matched, classified or embedded do not count, since they have a limit of their own."""
    max_items_per_s_per_key: int = Field(2048, ge=1)
    """The largest number of images and texts that one API key may send to a process per second. A larger request is
    accepted, and the key then waits."""
    max_stored_bytes_per_key: int = Field(MAX_STORED_BYTES_PER_KEY, ge=0)
    """The largest number of bytes that all uploaded data sets of one API key may have, in the database. An archive
    counts with the size of its files once it has been checked, and with 4,096 bytes more for each file and folder."""

    keep_jobs_s: float | None = Field(None, ge=0)
    """The number of seconds after its end for which a fine-tuning job is kept, with its events, curves and files. A job
    whose version is kept stays. Without a value, all are kept."""
    keep_evaluations_s: float | None = Field(None, ge=0)
    """The number of seconds after its end for which an evaluation is kept, with its results and report. Without a
    value, all are kept."""
    keep_versions_s: float | None = Field(None, ge=0)
    """The number of seconds for which a version is kept that nothing uses: no alias, no rollback, no open job, no
    serving process, and no version that is based on it. Without a value, all are kept."""
    keep_datasets_s: float | None = Field(None, ge=0)
    """The number of seconds after the end of the last job that used it for which a data set is kept. Without a value,
    all are kept."""
    keep_rollbacks: int | None = Field(None, ge=0)
    """The number of earlier versions that are kept for each alias, so that rollbacks may return to them. Without a
    value, all are kept."""

    allow_url_images: bool = False
    """Whether the service fetches images from URLs in requests."""

    keys_file: Path | None = None
    """The JSON file with the hashed API keys. Without it, the service listens on loopback addresses only."""
    console: bool = True
    """Whether the service has a console at `/`: a page in the browser over this API."""
    shared_workspace: bool = False
    """Whether all keys share one workspace. By default, a key without the scope admin sees and changes only what it
    made."""
    session_hours: float = Field(12.0, gt=0, le=8760)
    """The number of hours after which a browser that signed in with a key must sign in again."""
    allowed_hosts: Names = []
    """Host names, besides the loopback ones, that a service without keys answers to."""
    cors_origins: Names = []
    """The origins whose web pages may call the service, such as https://app.example.org. With keys, * stands for
    all."""
    trusted_proxies: Networks = Field(["127.0.0.1", "::1"], validate_default=True)
    """The addresses and networks of the proxies in front of the service. Only they may name the caller's address, which
    is logged, by X-Forwarded-For, and its scheme by X-Forwarded-Proto. Over https, the cookies of sessions are
    secure."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level of messages that are logged."""
    log_format: Format = "auto"
    """The format of the log: text, json or auto. auto means text on a terminal and JSON elsewhere."""

    @property
    def own_state_dir(self) -> Path:
        """`state_dir`, or the default, which no other process on this machine uses."""
        return self.state_dir or self.data_dir / "state" / f"{socket.gethostname()}-{self.port}"

    @property
    def max_image_bytes(self) -> int:
        """The largest number of bytes in one image file. As base64, they leave room in the body."""
        return self.max_body_bytes * 5 // 8

    @property
    def max_requests_per_key(self) -> int:
        return _share(256, self.key_share)

    @property
    def max_event_streams_per_key(self) -> int:
        return _share(MAX_EVENT_STREAMS, self.key_share)

    @property
    def max_buffered_bytes_per_key(self) -> int:
        return _share(self.max_buffered_bytes, self.key_share)

    @property
    def max_body_bytes_per_s_per_key(self) -> int:
        return _share(self.max_buffered_bytes_per_key, 1 / 2)

    @property
    def max_queue_per_key(self) -> int:
        return _share(self.max_queue, 3 / 4)

    @property
    def max_open_jobs_per_key(self) -> int:
        return _share(self.max_open_jobs, 1 / 10)

    @model_validator(mode="after")
    def _largest_request_fits(self) -> Self:
        if self.max_queue < self.max_images + MAX_TEXTS:
            raise ValueError(
                f"max_queue is less than max_images + {MAX_TEXTS} texts, so the largest request could never run; "
                "raise max_queue"
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


def _share(total: int, share: float) -> int:
    return max(1, int(total * share))
