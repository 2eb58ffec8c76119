"""The work of a test: jobs over a real store, and a worker of it, in this process or in one of its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.schemas.finetune import FinetuneSpec, Hyperparameters
from sds_clip.app.store import Store
from sds_clip.app.store.records import Event, Job, JobError, Move, NewJob
from sds_clip.app.store.states import JobKind, JobStatus
from sds_clip.models.clip.model import Clip
from sds_clip.worker.config import WorkerConfig
from sds_clip.worker.context import JobContext
from sds_clip.worker.errors import JobFailed
from sds_clip.worker.evaluate_job import evaluate
from sds_clip.worker.finetune_job import finetune
from sds_clip.worker.identity import ProcessId
from sds_clip.worker.job_process import Runner
from tests.worker import in_process, sets, waiting
from tests.worker.waiting import LIGHT, Running, WorkerProcess, until

Asked = dict[str, Any]
"""What a job is asked for: the options of a run beside the job's other fields."""
Encoded = list[dict[str, int]]
"""What models have encoded: `{"images": 8, "texts": 8}` of each."""
KINDS = {finetune: JobKind.FINETUNE, evaluate: JobKind.EVALUATE}


@dataclass
class Work:
    """A store, the configuration of its worker, and what a test does with both."""

    config: WorkerConfig
    store: Store

    def submit(self, asked: Asked, kind: JobKind = JobKind.FINETUNE, **options: Any) -> Job:
        job, is_new = self.store.jobs.submit(NewJob(kind, {"of": "a test"}, row_of(asked, kind), **options))
        assert is_new
        return job

    def light(self, act: str, **options: Any) -> Job:
        """A job of light_process.py. Options are its own, or those of any job."""
        of_jobs = options.keys() & NewJob.__dataclass_fields__.keys()
        asked = {"act": act, **{name: options[name] for name in options.keys() - of_jobs}}
        return self.submit(asked, **{name: options[name] for name in of_jobs})

    def get(self, job: Job) -> Job:
        """The job as it is now."""
        return self.store.jobs.get(job.id)

    def error(self, job: Job) -> JobError:
        """Why it has failed."""
        error = self.get(job).error
        assert error is not None
        return error

    def pause_reason(self, job: Job) -> JobError:
        reason = self.get(job).pause_reason
        assert reason is not None
        return reason

    def events(self, job: Job) -> tuple[Event, ...]:
        return self.store.events.events(job.id)

    def resumed(self, job: Job) -> list[int]:
        """The steps from which its later attempts went on."""
        return [
            event.data["step"] for event in self.events(job) if event.data and set(event.data) == {"step"}
        ]

    def until(self, job: Job, status: JobStatus) -> None:
        """Wait until it is there; a job that has ended otherwise is said at once."""
        waiting.until_status(self.store, job.id, status)

    def until_step(self, job: Job, step: int = 1, *, fence: int | None = None) -> None:
        """Wait until it has taken so many steps, in an attempt if one is named."""

        def there() -> bool:
            found = self.get(job)
            return found.step >= step and fence in (None, found.fence)

        until(there)

    def until_trained(self, job: Job, step: int, fence: int = 1) -> None:
        """Wait until an attempt has taken so many steps of its training."""

        def there() -> bool:
            found = self.get(job)
            return found.fence == fence and found.stage == "training" and found.step >= step

        until(there)

    @contextmanager
    def claimed(self, kind: JobKind = JobKind.FINETUNE, **changes: Any) -> Iterator[JobContext]:
        """The oldest job of a kind in this process, under a configuration with these changes."""
        with in_process.claimed(replace(self.config, **changes), self.store, kind) as context:
            yield context

    def take(self, runner: Runner, **changes: Any) -> None:
        """Do the oldest job of the runner's kind in this process."""
        with self.claimed(KINDS[runner], **changes) as context:
            runner(context)

    def fails(self, runner: Runner) -> tuple[str, str | None]:
        """The code and the parameter of the error with which the oldest job fails."""
        with pytest.raises(JobFailed) as caught:
            self.take(runner)
        return caught.value.error.code, caught.value.error.param

    def finetuned(self, asked: Asked, *, changes: Asked | None = None, **options: Any) -> Job:
        """A job that has trained a version, under a configuration with these changes."""
        config = replace(self.config, **(changes or {}))
        return in_process.run_job(config, self.store, self.submit(asked, **options), finetune)

    def evaluated(self, *, changes: Asked | None = None, **asked: Any) -> Job:
        config = replace(self.config, **(changes or {}))
        return in_process.run_job(config, self.store, self.submit(asked, JobKind.EVALUATE), evaluate)

    def published(self, base: Clip, delta: Path) -> str:
        return in_process.published(self.config, self.store, base, delta)

    def point(self, alias: str, version: str, generation: int = 0, **options: Any) -> None:
        """Move an alias, as somebody does who has seen it at a generation."""
        self.store.aliases.promote(Move(alias, "somebody", "", generation, **options), version)

    def add_ready(self, files: Path, format: str, **options: Any) -> str:
        return sets.add_ready(self.store, self.config, files, format, **options)

    def slot(self, **options: Any) -> Running:
        """A slot at work. Options are its own, or other values of its configuration."""
        changes = {
            name: options.pop(name) for name in options.keys() & WorkerConfig.__dataclass_fields__.keys()
        }
        return Running(replace(self.config, **changes), self.store, **options)

    def running(self, **options: Any) -> Running:
        """The same over light jobs, whose processes do not import torch."""
        return self.slot(**{"command": LIGHT, "threads": 0, **options})

    def worker(self, module: str = "tests.worker.light_worker", **changes: Any) -> WorkerProcess:
        """A whole worker in a process of its own, over light jobs if not said otherwise."""
        threads = self.config.threads if module == "tests.worker.real_worker" else 0
        return WorkerProcess(replace(self.config, **{"threads": threads, **changes}), module)

    def process(self, fence: int = 1) -> ProcessId:
        """The process that works on the one job's attempt, once there is one."""
        return waiting.job_process(self.config, fence)

    def notes(self) -> list[str]:
        """What light jobs have written down."""
        return waiting.notes(self.config)


def row_of(asked: Asked, kind: JobKind) -> Asked:
    """The row of a spec. The jobs of light_process.py, which have an `act`, and jobs that nobody runs have none."""
    if kind is JobKind.EVALUATE:
        return EvaluateSpec.model_validate(asked).as_row()
    if "training_data" not in asked:
        return asked
    options = {name: asked[name] for name in asked.keys() & Hyperparameters.model_fields.keys()}
    own = {name: asked[name] for name in asked.keys() - options.keys()}
    return FinetuneSpec.model_validate(own | {"hyperparameters": options}).as_row()


def if_better(tuning: Asked, data: str) -> Asked:
    """The run whose version is promoted if it is better on a Winoground set."""
    return tuning | {
        "promote": "if_better",
        "evaluate": [{"benchmark": "winoground", "data": data}],
        "validation_data": tuning["training_data"],
    }


def result_of(job: Job) -> Any:
    assert job.result is not None
    return job.result


def before_success(context: JobContext, act: Callable[[Asked], object]) -> None:
    """Do something with what the job is to end with, each time that it is about to."""
    succeed = context.succeed

    def acting(**ending: Any) -> Job:
        act(ending)
        return succeed(**ending)

    context.succeed = acting  # type: ignore[method-assign]
