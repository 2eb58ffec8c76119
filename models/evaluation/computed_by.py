"""Identify the code that computed figures, features and scores. Another version may compute different ones."""

import contextlib
import hashlib
import json
import os
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

# An upgrade of any of these may change features or scores, so everything is computed anew after it.
PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "diffusers", "pillow", "numpy")


@cache
def computed_by() -> str:
    """Return a short hash of `code_version` and the versions of the computing packages, for cache keys."""
    versions = json.dumps([code_version(), *(_version(package) for package in PACKAGES)])
    return hashlib.sha256(versions.encode()).hexdigest()[:8]


@cache
def code_version() -> str:
    """Return the version of the installed package, and the commit: `0.1.0+1a2b3c4d5e6f-dirty`.

    The commit is that of a checkout, or the one that an image was built with (SDS_CLIP_COMMIT).
    """
    installed = _version("sds-clip") or "unknown"
    if commit := os.environ.get("SDS_CLIP_COMMIT"):
        return f"{installed}+{commit}"
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return installed
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
        return f"{installed}+{found.stdout.strip()}"
    return installed


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
