"""Settings of a service under test, and those of its constants that a test may change."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sds_clip.app.settings import Settings

CONSTANTS = {
    "swap_poll_s": "sds_clip.app.serving.swap.POLL_S",
    "max_versions": "sds_clip.app.serving.version_cache.MAX_VERSIONS",
    "version_wait_s": "sds_clip.app.serving.version_cache.WAIT_S",
    "max_version_loads_per_key": "sds_clip.app.serving.version_cache.MAX_LOADS_PER_KEY",
    "class_wait_s": "sds_clip.app.main.CLASS_WAIT_S",
    "body_timeout_s": "sds_clip.app.edge.middleware.BODY_TIMEOUT_S",
    "min_upload_bytes_per_s": "sds_clip.app.edge.middleware.MIN_UPLOAD_BYTES_PER_S",
    "max_upload_time_s": "sds_clip.app.edge.middleware.MAX_UPLOAD_TIME_S",
    "store_threads": "sds_clip.app.backend.STORE_THREADS",
    "max_uploads": "sds_clip.app.backend.MAX_UPLOADS",
    "max_uploads_per_key": "sds_clip.app.backend.MAX_UPLOADS_PER_KEY",
}
"""Where each is. The shares of a key are properties of the settings."""


@contextmanager
def changed(**values: Any) -> Iterator[Settings]:
    """Settings with these values, some of which are constants that stay changed during the block."""
    fixed = values.keys() - Settings.model_fields.keys()
    with pytest.MonkeyPatch.context() as patch:
        for name in fixed:
            patch.setattr(CONSTANTS.get(name, f"sds_clip.app.settings.Settings.{name}"), values[name])
        yield Settings(**{name: value for name, value in values.items() if name not in fixed})
