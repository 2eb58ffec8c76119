"""The progress of a job's training, reported to the store and, as ticks, to the supervisor."""

from collections.abc import Callable

from sds_clip.models.training.log import read_log
from sds_clip.models.training.watcher import Record, Watcher
from sds_clip.worker.context import JobContext


class TrainingProgress(Watcher):
    """Follows the training of one attempt, which continues after `start` steps."""

    def __init__(self, context: JobContext, start: int) -> None:
        self._context = context
        self._start = start
        self._began: tuple[float, int] | None = None
        self._has_own_checkpoint = False

    def tell_again(self) -> None:
        """Send the metrics of the steps before the checkpoint that an earlier attempt could not send."""
        latest = self._context.store.events.latest_metrics(self._context.job.id)
        for record in read_log(self._context.folder.log):
            if (-1 if latest is None else latest.step) < record["step"] <= self._start:
                self.on_record(record)

    def on_record(self, record: Record) -> None:
        figures = {name: float(value) for name, value in record.items() if name not in ("step", "steps")}
        self._context.reporter.metrics(int(record["step"]), figures)

    def on_step(self, done: int, steps: int) -> None:
        self._context.advance(done, steps, self._estimate(done, steps), stage="training")
        # Earlier attempts' files are needed only until this attempt has a checkpoint of its own.
        if not self._has_own_checkpoint and self._context.folder.has_checkpoint_after(self._start):
            self._has_own_checkpoint = True
            self._context.folder.drop_earlier()

    def on_restored(self, save: Callable[[], int]) -> None:
        self._context.save = save

    def on_batch(self, stage: str, done: int, total: int) -> None:
        if done < total:
            self._context.stage(stage, done, total)
        else:
            self._context.stage("training")

    def before_saving(self, size_bytes: int) -> None:
        self._context.check_disk(size_bytes)

    def should_stop(self) -> bool:
        return self._context.should_stop()

    def _estimate(self, done: int, steps: int) -> float | None:
        """Estimate when the last step ends, from the pace since this attempt's first step."""
        now = self._context.store.now()
        if self._began is None:
            self._began = now, done
            return None
        began, first = self._began
        return now + (now - began) / (done - first) * (steps - done)
