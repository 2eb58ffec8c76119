"""Whether a call that failed is sent again, and when.

Only one whose repetition has no second effect is: reading, computing, what is no error when it is asked for again,
and a submission, whose Idempotency-Key stays the same.
"""

from sds_clip.client.errors import APIError, ClientError, ConnectionFailed

MAX_ATTEMPTS = 5
MAX_PAUSE_S = 60.0
_SENT_AGAIN = (429, 503)
_LOST_PAUSE_S = 0.5


def at_least_one(max_attempts: int) -> int:
    """The number itself. Raises ValueError for one below 1."""
    if max_attempts < 1:
        raise ValueError(f"max_attempts is {max_attempts}; a call is sent once at least.")
    return max_attempts


def pause_s(error: ClientError, attempt: int, max_attempts: int) -> float | None:
    """How long to wait before the next attempt; None where there should be none."""
    if attempt >= max_attempts:
        return None
    if isinstance(error, ConnectionFailed):
        return _LOST_PAUSE_S * 2 ** (attempt - 1) if error.reached else None
    if isinstance(error, APIError) and error.retry_after_s is not None:
        again = error.status in _SENT_AGAIN or error.code == "idempotency_in_flight"
        return error.retry_after_s if again and error.retry_after_s <= MAX_PAUSE_S else None
    return None
