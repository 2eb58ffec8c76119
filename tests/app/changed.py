"""Settings of a service under test, and those of its constants that a test may change."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.settings import Settings

CONSTANTS = {
    "swap_poll_s": "app.serving.swap.POLL_S",
    "max_versions": "app.serving.version_cache.MAX_VERSIONS",
    "version_wait_s": "app.serving.version_cache.WAIT_S",
    "max_version_loads_per_key": "app.serving.version_cache.MAX_LOADS_PER_KEY",
    "class_wait_s": "app.main.CLASS_WAIT_S",
    "body_timeout_s": "app.middleware.BODY_TIMEOUT_S",
    "min_upload_bytes_per_s": "app.middleware.MIN_UPLOAD_BYTES_PER_S",
    "max_upload_time_s": "app.middleware.MAX_UPLOAD_TIME_S",
    "store_threads": "app.backend.STORE_THREADS",
    "max_uploads": "app.backend.MAX_UPLOADS",
    "max_uploads_per_key": "app.backend.MAX_UPLOADS_PER_KEY",
}
"""Where each is. The shares of a key are properties of the settings."""


@contextmanager
def changed(**values: Any) -> Iterator[Settings]:
    """Settings with these values, some of which are constants that stay changed during the block."""
    fixed = values.keys() - Settings.model_fields.keys()
    with pytest.MonkeyPatch.context() as patch:
        for name in fixed:
            patch.setattr(CONSTANTS.get(name, f"app.settings.Settings.{name}"), values[name])
        yield Settings(**{name: value for name, value in values.items() if name not in fixed})
