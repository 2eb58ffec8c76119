"""What jobs have measured: an evaluation its model and its baseline, and a fine-tuning job the version that it made."""

from collections.abc import Iterator
from dataclasses import dataclass

from sds_clip.app.schemas.evaluate import EvaluateSpec
from sds_clip.app.schemas.finetune import Evaluation, FinetuneSpec
from sds_clip.app.schemas.jobs import FILES
from sds_clip.app.store.records import Job, Json
from sds_clip.app.store.states import JobKind


@dataclass(frozen=True)
class Measured:
    """What a job has measured of one model on one data set."""

    job: Job
    options: Json
    """How it was measured, as an evaluation is asked to."""
    figures: Json
    file: str | None
    """The file of the results with their items, below the data folder. It is None without the job's files."""

    @property
    def benchmark(self) -> str:
        return str(self.options["benchmark"])

    @property
    def data(self) -> str:
        return str(self.options["data"])

    @property
    def name(self) -> str:
        return Evaluation(benchmark=self.benchmark, data=self.data).name

    @property
    def data_hash(self) -> str | None:
        """That of what was read, which data sets of different ids may share."""
        found: str | None = (self.figures.get("provenance") or {}).get("data_hash")
        return found


def measured_by(job: Job) -> Iterator[tuple[Measured, Measured | None]]:
    """Yield what a job has measured of its own model, and of the one that it was compared with.

    An evaluation has one such pair, and a fine-tuning job one for each benchmark, in the order of its request.
    """
    result = job.result or {}
    files = {} if job.files_removed_at is not None else result.get(FILES) or {}

    def pair(options: Json, figures: Json, own: str, baseline: str) -> tuple[Measured, Measured | None]:
        other = figures.get("baseline")
        return (
            Measured(job, options, figures, files.get(own)),
            None if other is None else Measured(job, options, other, files.get(baseline)),
        )

    if job.kind is JobKind.EVALUATE:
        if result:
            yield pair(EvaluateSpec.upgraded(job.config), result, "results", "baseline")
        return
    for asked in map(Evaluation.model_validate, FinetuneSpec.upgraded(job.config).get("evaluate") or ()):
        if figures := (result.get("evaluations") or {}).get(asked.name):
            # It measures as an evaluation does that is asked for nothing else.
            options = EvaluateSpec(benchmark=asked.benchmark, data=asked.data, model=job.result_version)
            yield pair(options.as_shown(), figures, asked.name, asked.baseline)
