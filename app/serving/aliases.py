"""What this process knows of the aliases: where each points, what came of loading that, and when they were read.

Where an alias may have a name and its version is not loaded, nothing answers for that name: `withheld` says why
(docs/decisions/0019-never-the-wrong-weights.md). `app.serving.swap` keeps this up to date.
"""

import time
from dataclasses import dataclass, field

from app.errors import ModelNotReady, RegistryAway, ServiceError
from app.schemas.models import FailedLoad
from app.store.alias_names import may_be_alias
from app.store.errors import VersionDamaged
from app.store.records import Alias

NOT_READY_RETRY_S = 5


@dataclass(eq=False)
class FollowedAlias:
    """One alias: where it points, and what is being done about it."""

    wanted: Alias
    staging: dict[str, float] = field(default_factory=dict)
    """Versions that are being made ready, and since when on the monotonic clock."""
    failure: FailedLoad | None = None
    """The last version that could not be loaded."""
    retry_at: float = 0.0
    """When that is tried again, on the monotonic clock."""

    @property
    def has_failed(self) -> bool:
        """Whether what the alias points at now is what could not be loaded."""
        return self.failure is not None and (self.failure.version, self.failure.generation) == (
            self.wanted.version,
            self.wanted.generation,
        )

    def is_due(self, now: float) -> bool:
        """Whether to load the wanted version now: it is not being loaded, and did not fail a moment ago."""
        if self.wanted.version in self.staging:
            return False
        return not self.has_failed or now >= self.retry_at

    def why_not_loaded(self) -> ServiceError:
        """Why the alias does not answer, without what only the operator may see."""
        if self.failure is None or not self.has_failed:
            reason = "is being loaded; send the request again later"
        elif self.failure.code == VersionDamaged.code:
            return VersionDamaged(self.wanted.version, param="model")
        else:
            reason = (
                f"cannot be loaded ({self.failure.code}); GET /models/status and the server's log say why"
            )
        return ModelNotReady(
            f"Version {self.wanted.version[:12]}, which {self.wanted.name} stands for, {reason}.",
            param="model",
            retry_after_s=NOT_READY_RETRY_S,
        )


class FollowedAliases:
    """Every alias that was read, in this run of the process or, until it can read them, in an earlier one."""

    def __init__(self) -> None:
        self.by_name: dict[str, FollowedAlias] = {}
        self.unaliased = set[str]()
        """Names of references that no alias had when that was last known: their references answer for them."""
        self.read_at: float | None = None
        """When this run last read the aliases, in seconds since the epoch."""
        self.away: str | None = None
        """Why they cannot be read at the moment."""

    def withheld(self, name: str) -> ServiceError | None:
        """Why no reference may answer for a name under which no alias serves anything; None where one may."""
        if name in self.unaliased:
            return None
        if (followed := self.by_name.get(name)) is not None:
            return followed.why_not_loaded()
        if (self.read_at is None or self.away is not None) and may_be_alias(name):
            return RegistryAway(
                f"Which version {name} stands for cannot be read at the moment; send the request again later.",
                param="model",
                retry_after_s=NOT_READY_RETRY_S,
            )
        return None

    def note_read(self) -> None:
        self.away, self.read_at = None, time.time()
