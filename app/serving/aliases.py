"""What this process knows of the aliases: where each points, how loading went, and when they were read.

If a name may be an alias and its version is not loaded, nothing answers for that name, and `withheld` says
why (docs/decisions/0019-never-the-wrong-weights.md). `sds_clip.app.serving.swap` keeps this up to date.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sds_clip.app.errors import ModelNotReady, RegistryAway, ServiceError, VersionDamaged
from sds_clip.app.registry.local_state import LocalState
from sds_clip.app.schemas.models import FailedLoad
from sds_clip.app.store.alias_names import may_be_alias
from sds_clip.app.store.records import Alias

NOT_READY_RETRY_S = 5


@dataclass(eq=False)
class FollowedAlias:
    """One alias: where it points, and the state of loading that version."""

    wanted: Alias
    staging: dict[str, float] = field(default_factory=dict)
    """The versions that are being loaded, each with its start time on the monotonic clock."""
    failure: FailedLoad | None = None
    """The last version that could not be loaded."""
    retry_at: float = 0.0
    """When to retry the failed version, on the monotonic clock."""
    previous_tried: tuple[int, str] | None = None
    """The last generation whose previous version was loaded for a rollback, or could not be, and that version."""

    @property
    def has_failed(self) -> bool:
        """Whether the version that the alias points to now is the one that could not be loaded."""
        return self.failure is not None and (self.failure.version, self.failure.generation) == (
            self.wanted.version,
            self.wanted.generation,
        )

    def is_due(self, now: float) -> bool:
        """Whether to load the wanted version now: it is not being loaded, and it did not fail just now."""
        if self.wanted.version in self.staging:
            return False
        return not self.has_failed or now >= self.retry_at

    def why_not_loaded(self) -> ServiceError:
        """The reason for which the alias does not answer, without details meant only for the operator."""
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
    """Every alias that this process has read.

    Until it can read them, these are the ones of an earlier run.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, FollowedAlias] = {}
        self.unaliased = set[str]()
        """Names of references that no alias had when last known. The references answer for them."""
        self.read_at: float | None = None
        """When this run of the process last read the aliases, in seconds since the epoch."""
        self.away: str | None = None
        """Why the aliases cannot be read at the moment."""

    def withheld(self, name: str) -> ServiceError | None:
        """Why no reference may answer for a name under which no alias serves anything, or None if one may."""
        if name in self.unaliased:
            return None
        if (followed := self.by_name.get(name)) is not None:
            return followed.why_not_loaded()
        if (self.read_at is None or self.away is not None) and may_be_alias(name):
            return RegistryAway(
                f"The server cannot read at the moment which version {name} stands for; send the request again "
                "later.",
                param="model",
                retry_after_s=NOT_READY_RETRY_S,
            )
        return None


@dataclass(frozen=True)
class Following:
    """What a process has that follows aliases: where it reads them, what it knows of them, what it keeps."""

    read_aliases: Callable[[], Sequence[Alias]]
    """Called in a thread of its own. Any error means that the aliases cannot be read."""
    aliases: FollowedAliases
    state: LocalState
