"""The store's errors. All are ServiceErrors, which HTTP renders and workers read by the same fields.

ServiceError
├── Unavailable
│   └── StoreUnavailable      503  the database is away, locked or full; trying again can help
├── NotFound
│   └── UnknownRecord         404  job_not_found, version_not_found, alias_not_found, dataset_not_found
├── InvalidRequest
│   ├── UnusableRecord        422  a job needs a data set or version that is gone or was rejected
│   └── IdempotencyMismatch   422  the key was used with another payload
└── Conflict                  409  the resource is not in the state that the caller assumes
    ├── JobStateConflict           a finished job cannot be cancelled, ...
    ├── InputsGone                 a job cannot be retried without its data sets and versions
    ├── IdempotencyInFlight        the same key is being submitted this moment
    ├── RecordInUse                an alias, a job or a version needs it
    ├── AliasMoved                 its generation is no longer the one that was compared
    ├── NothingToRollBack          the alias has no previous version
    ├── VersionDamaged             its files are not those that were published
    ├── VersionGone                to workers only: the files to be registered were removed meanwhile
    └── LeaseLost                  to workers only: another one holds the job, or it has ended
"""

from typing import ClassVar

from app.errors import InvalidRequest, NotFound, ServiceError, Unavailable


class StoreUnavailable(Unavailable):
    """The database does not answer, is locked, or cannot write. What was asked may or may not have happened."""

    code = "store_unavailable"

    def __init__(self) -> None:
        super().__init__("The database does not answer; try again.", retry_after_s=2)


class UnknownRecord(NotFound):
    """No job, version, alias or data set of that id."""

    def __init__(self, what: str, *, param: str | None = None) -> None:
        noun = what.replace("dataset", "data set")
        super().__init__(f"No {noun} of that id exists here.", code=f"{what}_not_found", param=param)


class UnusableRecord(InvalidRequest):
    """A data set that was rejected or deleted, or a version that was deleted, cannot be used by a job."""

    code = "unusable_record"


class IdempotencyMismatch(InvalidRequest):
    """The Idempotency-Key was used before, with another payload."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used with another request; use a new key for a new request.",
            param="Idempotency-Key",
        )


class Conflict(ServiceError):
    """The state of things is another than the caller assumes."""

    status = 409
    code = "conflict"
    type: ClassVar[str] = "invalid_request_error"


class JobStateConflict(Conflict):
    """The job's status does not allow what was asked."""

    code = "job_state"


class InputsGone(Conflict):
    """A data set or version that the job needs was rejected or deleted."""

    code = "inputs_gone"


class IdempotencyInFlight(Conflict):
    """A request with the same Idempotency-Key is being worked on this moment."""

    code = "idempotency_in_flight"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is being worked on; try again in a moment.",
            param="Idempotency-Key",
            retry_after_s=1,
        )


class RecordInUse(Conflict):
    """What was to be deleted is still needed; the message says by what."""

    code = "in_use"


class AliasMoved(Conflict):
    """The alias has another generation than the caller compared with: look again, then decide again."""

    code = "alias_moved"
    retryable = True


class NothingToRollBack(Conflict):
    """The alias has no previous version, or that was deleted."""

    code = "nothing_to_roll_back"


class VersionDamaged(Conflict):
    """The version's files are not those that were published.

    409 and not retryable: the same request succeeds once the version was published again, and no sooner.
    """

    code = "version_damaged"

    def __init__(self, version: str, *, param: str) -> None:
        super().__init__(
            f"Version {version[:12]} is damaged: its files, or those of a version that it lies over, are not what "
            "was published. Use another version, or submit the same job again.",
            param=param,
        )


class VersionGone(Conflict):
    """The files of the version that is to be registered were removed meanwhile: publish it again, then register it."""

    code = "version_gone"
    retryable = True


class LeaseLost(Conflict):
    """The worker's fence is no longer the job's, or the job has ended: stop, and leave no effect."""

    code = "lease_lost"
