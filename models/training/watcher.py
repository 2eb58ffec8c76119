"""How a caller follows a run and stops it. This module imports nothing heavy, so that a command may use it."""

from collections.abc import Callable, Mapping

ENCODING, FITTING, VALIDATING = "encoding captions", "fitting the mapper", "validating"
"""The stages in which no steps are taken, as users see them."""

Record = Mapping[str, int | float]
"""A line of the log. `step` counts the steps done."""


class Watcher:
    """Follows a run. This class does nothing; a caller overrides the methods that it needs.

    An exception from a method ends the run, which can be resumed from its last checkpoint.
    """

    def on_record(self, record: Record) -> None:
        """Called by the main process with every record that it logs."""

    def on_step(self, done: int, steps: int) -> None:
        """Called by the main process after every step."""

    def on_restored(self, save: Callable[[], int]) -> None:
        """Called by the main process before the first step.

        From then on, any thread may call `save`. It writes a checkpoint of the last whole step unless there is one, and
        returns how many steps that has done.
        """

    def on_batch(self, stage: str, done: int, total: int) -> None:
        """Called by the main process while no steps are taken, with the images, or captions, that are done.

        That is each time that some of the captions are encoded ahead, of the images to which the mapper is fitted, or
        of those on which the model is validated.
        """

    def before_saving(self, size_bytes: int) -> None:
        """Called by the main process before it writes a checkpoint, with the size of that."""

    def should_stop(self) -> bool:
        """Asked by every process after every step and every `on_batch`. If one says yes, all of them stop."""
        return False
