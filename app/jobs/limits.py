"""What an operator lets one fine-tuning job ask for."""

from dataclasses import dataclass, fields

from app.errors import InvalidRequest
from app.settings import Settings
from models.training.config import FinetuneConfig


@dataclass(frozen=True)
class JobLimits:
    """The settings of the same names."""

    max_steps: int = 10_000_000
    max_log_points: int = 500_000
    """All of them are kept: in the database, and in the log that stays with the version."""
    max_keep_checkpoints: int = 20

    @classmethod
    def of(cls, settings: Settings) -> "JobLimits":
        """From what the operator has set."""
        return cls(**{field.name: getattr(settings, field.name) for field in fields(cls)})

    def check(self, options: FinetuneConfig, steps: int | None) -> None:
        """Raise InvalidRequest for what is over a limit. `steps` are those of the run, as far as they are known."""
        if options.keep_checkpoints > self.max_keep_checkpoints:
            raise _over(
                "keep_checkpoints", f"{options.keep_checkpoints} checkpoints", self.max_keep_checkpoints
            )
        steps = steps or options.steps
        if steps is None:
            return
        if steps > self.max_steps:
            raise _over("steps" if options.steps is not None else "epochs", f"{steps} steps", self.max_steps)
        points = -(-steps // options.log_every)
        if points > self.max_log_points:
            raise _over("log_every", f"{points} logged points", self.max_log_points, change="raise")


def _over(option: str, asked: str, most: int, *, change: str = "lower") -> InvalidRequest:
    return InvalidRequest(
        f"{option} asks for {asked}, and this server allows {most} at most; {change} it.",
        code="over_limit",
        param=f"hyperparameters.{option}",
    )
