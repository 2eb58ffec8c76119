"""How a job's process ends, as its supervisor reads it from the exit code."""

from enum import IntEnum


class Exit(IntEnum):
    """Everything but a signal or an unknown code: those mean that the process died."""

    ENDED = 0
    """The job succeeded, or failed with its reason; its row says which."""
    RELEASED = 10
    """It stopped at a checkpoint, and let the job go."""
    LEASE_LOST = 11
    """Somebody else has the job, or it has ended."""
    STORE_AWAY = 12
    """The database does not answer; the lease will end by itself."""
    ORPHANED = 13
    """Its supervisor is gone."""
