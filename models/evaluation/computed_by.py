"""What features and scores on disk were computed by: an upgrade may change them."""

import hashlib
import json
from functools import cache
from importlib import metadata

PACKAGES = ("sds-clip", "torch", "open_clip_torch", "transformers", "diffusers", "pillow", "numpy")


@cache
def computed_by() -> str:
    """A short hash of the installed versions of the packages that compute, for the name of what is kept."""
    versions = json.dumps([_version(package) for package in PACKAGES])
    return hashlib.sha256(versions.encode()).hexdigest()[:8]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
