"""What a system in containers owes: every accepted job succeeds once, and every answer is by promoted weights."""

import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from sds_clip import Client, Job
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.encode import encode_images
from sds_clip.models.clip.model import Clip
from sds_clip.models.markdown import markdown_table
from tests.docker.system import System, tried, until

TEXTS = ["a red circle left of a blue star", "a blue star left of a red circle"]
SHORT = {"batch_size": 8, "warmup_steps": 1, "save_every": 2, "log_every": 1, "lr": 1e-3}
ENDLESS = 1_000_000
TOLERANCE = 1e-4  # of a cosine in float32
HEADER = ("action", "containers", "lost", "duplicated", "wrong", "refused", "recovery, s")


@dataclass
class Row:
    """An action, and what was found after it."""

    action: str
    containers: int
    lost: list[str]
    duplicated: list[str]
    wrong: list[str]
    refused: int
    """Requests that got no answer, of those that one caller sent one after the other."""
    recovery_s: float | None

    def cells(self) -> list[object]:
        counts = [len(self.lost), len(self.duplicated), len(self.wrong)]
        recovery = "" if self.recovery_s is None else f"{self.recovery_s:.0f}"
        return [self.action, self.containers, *counts, self.refused, recovery]


class Load:
    """A caller that matches one picture again and again, until it is closed."""

    def __init__(self, client: Client, picture: Path) -> None:
        self.answers: list[dict[str, Any]] = []
        self.refused = 0
        self._ask = partial(client.match, [picture], TEXTS)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(0.1):
            answer = tried(self._ask)
            if answer is None:
                self.refused += 1
            else:
                self.answers.append(answer)


@dataclass
class Account:
    """Keeps what was accepted and answered, and checks it after each action."""

    system: System
    key: str
    picture: Path
    folder: Path
    base: str
    """The reference of the served model here."""
    tolerance: float = TOLERANCE
    pairs: str = ""
    accepted: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    _scores: dict[str, list[float]] = field(default_factory=dict)
    _hit: tuple[float, Job, int] | None = None
    """When the last fault came, the job that was under way, and its step."""

    def __post_init__(self) -> None:
        base = load(self.base)
        self._scores[base.version] = scores(base, self.picture)
        # A caller that does not try again, so that each refusal is seen.
        self.client = Client(self.system.url, api_key=self.key)
        self._impatient = Client(self.system.url, api_key=self.key, max_attempts=1, timeout_s=10)

    def close(self) -> None:
        self.client.close()
        self._impatient.close()

    def submit(self, **fields: Any) -> Job:
        steps = fields.pop("steps", 4)
        job = self.client.finetune(
            self.pairs, objective="clip", hyperparameters={**SHORT, "steps": steps}, **fields
        )
        self.accepted.append(job.id)
        return job

    def evaluate(self, data: str) -> Job:
        job = self.client.evaluate("winoground", data, model="default")
        self.accepted.append(job.id)
        return job

    def hit(self, job: Job) -> None:
        """A fault comes now. The system has recovered when it matches images and the job has got further."""
        self._hit = time.monotonic(), job, step_of(job)

    @contextmanager
    def action(self, name: str) -> Iterator[None]:
        """Do something to the system under load. Then everything accepted must end well, and once."""
        load = Load(self._impatient, self.picture)
        self._hit = None
        try:
            yield
            recovery_s = self._recovered()
            self._until_all_have_ended()
        finally:
            load.close()
        lost, duplicated = self._check_jobs()
        row = Row(
            name, self._running(), lost, duplicated, self._wrong(load.answers), load.refused, recovery_s
        )
        self.rows.append(row)
        print(markdown_table(HEADER, [row.cells()]).splitlines()[-1], flush=True)
        assert row.lost + row.duplicated + row.wrong == []

    def table(self) -> str:
        return markdown_table(HEADER, [row.cells() for row in self.rows])

    def _recovered(self) -> float | None:
        """The seconds since the fault until the system worked again, or None if there was none."""
        until(lambda: tried(partial(self._impatient.match, [self.picture], TEXTS)), "an image is matched")
        if self._hit is None:
            return None
        at, job, step = self._hit
        until(lambda: tried(lambda: job.refresh().has_ended or step_of(job) > step), "the job goes on")
        return time.monotonic() - at

    def _until_all_have_ended(self) -> None:
        for job_id in self.accepted:
            until(lambda job_id=job_id: tried(lambda: self.client.job(job_id).has_ended), f"{job_id} ends")  # type: ignore[misc]

    def _check_jobs(self) -> tuple[list[str], list[str]]:
        lost, duplicated = [], []
        for job_id in self.accepted:
            job = self.client.job(job_id)
            ends = [change for change in job.info["transitions"] if change["to_status"] == "succeeded"]
            if job.status != "succeeded":
                lost.append(f"{job_id} is {job.status}: {job.info['error']}")
            elif len(ends) != 1:
                duplicated.append(f"{job_id} succeeded {len(ends)} times")
        unknown = {job.id for job in self.client.jobs(limit=100)} - {*self.accepted}
        duplicated += [f"{job_id} was made and is nobody's" for job_id in unknown]
        versions = self.client.models(limit=100)["versions"]
        made = [version["job_id"] for version in versions if version["job_id"]]
        duplicated += [
            f"{job_id} has two versions" for job_id in {job for job in made if made.count(job) > 1}
        ]
        return lost, duplicated

    def _wrong(self, answers: list[dict[str, Any]]) -> list[str]:
        wrong = []
        for answer in answers:
            version, found = answer["model"]["version"], answer["results"][0]["scores"]
            expected = self._expected(version)
            if max(abs(a - b) for a, b in zip(found, expected, strict=True)) > self.tolerance:
                wrong.append(f"{version[:12]} answered {found} instead of {expected}")
        return wrong

    def _expected(self, version: str) -> list[float]:
        """The scores of a version, computed here from its published weights."""
        if version not in self._scores:
            archive = self.client.download(version, self.folder / f"{version[:12]}.tar", full=True)
            target = self.folder / version[:12]
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
            self._scores[version] = scores(load(f"local-dir:{weights_in(target)}"), self.picture)
        return self._scores[version]

    def _running(self) -> int:
        return len(self.system.compose("ps", "--quiet").split())


def step_of(job: Job) -> int:
    return int(job.info["progress"]["step"] or 0)


def load(reference: str) -> Clip:
    return load_clip(reference, device="cpu", precision="float32")


def weights_in(folder: Path) -> Path:
    return next(folder.rglob("open_clip_config.json")).parent


def scores(clip: Clip, picture: Path) -> list[float]:
    """Computed here, in float32."""
    with Image.open(picture) as image:
        features = encode_images(clip, [image.convert("RGB")])
    return [float(score) for score in (features @ clip.encode_text(clip.tokenizer(TEXTS)).T)[0]]
