"""The learning rate of the demo's longer training runs."""

from __future__ import annotations


class PlateauRate:
    """Warm-up, plateau, linear decay. On the plateau a run can still be lengthened or shortened.

    A recipe that inherits this has these four fields.
    """

    steps: int
    learning_rate: float
    warmup_steps: int
    decay_share: float
    """The final share of the steps, over which the rate falls linearly to zero."""

    def learning_rate_at(self, step: int) -> float:
        """The rate of a step, counted from 0."""
        rise = (step + 1) / self.warmup_steps
        return self.learning_rate * min(rise, 1.0, self._fall_at(step))

    def decays_at(self, step: int) -> bool:
        """Whether the decay has begun at this step."""
        return self._fall_at(step) < 1

    def _fall_at(self, step: int) -> float:
        return (self.steps - step) / (self.steps * self.decay_share)
