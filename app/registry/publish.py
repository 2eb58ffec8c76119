"""Publishes weights as a version: a folder named by their hash.

It appears complete or not at all, and never changes.
"""

import contextlib
import json
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeGuard

from sds_clip.app.registry.golden_file import write_golden
from sds_clip.app.registry.manifest import (
    MANIFEST_FILE,
    Manifest,
    VersionError,
    kind_of,
    verify,
    write_manifest,
)
from sds_clip.app.removal import REMOVING
from sds_clip.models.atomic import atomic_folder, sync_folder
from sds_clip.models.checkpoints.delta_file import read_delta, read_description
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.references import DESCRIPTION_FILE, Folder, Reference, is_delta, parse
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.model import Clip
from sds_clip.models.errors import CheckpointError
from sds_clip.models.run_files import LOG_FILE

_JOB = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True)
class PublishedVersion:
    """A version on disk."""

    version: str
    kind: Literal["delta", "full"]
    folder: Path
    size_bytes: int
    base_version: str | None
    """For a delta, the version of its base."""
    description: dict[str, Any]


_Weights = tuple[str, Golden | None, dict[str, Any]]
"""A version, its golden embeddings and what the manifest says of it. A delta has both in its own files, not here."""


def publish(
    source: Path,
    versions: Path,
    *,
    job: str,
    fence: int,
    base: Clip | None = None,
    log: Path | None = None,
) -> PublishedVersion:
    """Copy a delta or full weights into `versions`, under the hash of the weights, and return what is there.

    Until it is complete and synced to disk, the folder has a temporary name that contains `job` and `fence`.
    A version that was published before is left unchanged, or replaced if it is damaged. Pass `base` to avoid
    loading a delta's base again. `log` is the training run's log, which stays with the version.

    Raises CheckpointError if the source cannot be loaded or nothing can be written.
    """
    if not _JOB.fullmatch(job):
        raise VersionError(f"{job!r} cannot be part of a folder's name; use letters, digits, _ and -.")
    weights = _of_delta(source, base) if kind_of(source) == "delta" else _of_full(source)
    version, *_ = weights
    folder = versions / version
    while True:
        if not folder.exists():
            finished = versions / f".publishing.{job}.{fence}"
            shutil.rmtree(finished, ignore_errors=True)  # left behind if this attempt was killed here before
            _copy(source, finished, weights, job, log)
            _take_name(finished, folder)
        try:
            return read_published(folder, version)
        except VersionError:
            with contextlib.suppress(FileNotFoundError):  # it may have been removed while it was being read
                os.rename(folder, versions / f"{REMOVING}{folder.name}.{job}.{fence}")
        except (CheckpointError, OSError):
            if folder.exists():
                raise


def read_published(folder: Path, version: str) -> PublishedVersion:
    """Read a published version and verify its hashes. Raises VersionError."""
    manifest = verify(folder, version)
    base = read_description(folder).base_version if manifest.kind == "delta" else None
    return PublishedVersion(
        version, manifest.kind, folder, manifest.size_bytes, base, _description(folder, manifest)
    )


def lies_among(reference: Reference, versions: Path) -> TypeGuard[Folder]:
    return isinstance(reference, Folder) and Path(reference.path).parent.resolve() == versions.resolve()


def _copy(source: Path, finished: Path, weights: _Weights, job: str, log: Path | None) -> None:
    version, golden, about = weights
    with atomic_folder(finished) as working:
        for path in sorted(source.iterdir()):
            if path.is_file() and not path.name.startswith(".") and path.name != MANIFEST_FILE:
                shutil.copyfile(path, working / path.name)
        if log is not None:
            shutil.copyfile(log, working / LOG_FILE)
        if is_delta(working):
            _name_base_from_beside(working / DESCRIPTION_FILE, finished.parent)
        if golden is not None:
            write_golden(working, golden)
        # After every other file: one that the manifest lacks makes the version count as damaged.
        write_manifest(working, version, job, about)
        verify(working, version)


def _name_base_from_beside(description: Path, versions: Path) -> None:
    """Name a published base by a relative path, so that versions can be moved or unpacked together."""
    content = json.loads(description.read_text(encoding="utf-8"))
    base = parse(content["base"]["reference"])
    if lies_among(base, versions):
        content["base"]["reference"] = str(replace(base, path=f"../{content['base']['version']}"))
        description.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _of_delta(source: Path, base: Clip | None) -> _Weights:
    """A delta's version, computed over its base. Its own files hold its golden embeddings and description."""
    if base is None:
        clip = load_clip(str(Folder(str(source))), device="cpu", precision="float32")
        return clip.version, None, {}
    delta = read_delta(source)
    version = base.identity.replacing(delta.tensors).version
    if version != delta.about.version:
        raise VersionError(
            f"{source} states version {delta.about.version[:12]}, but over {base.reference} it is version "
            f"{version[:12]}: its base is another one, or it was changed. Save it again."
        )
    return version, None, {}


def _of_full(source: Path) -> _Weights:
    clip = load_clip(str(Folder(str(source))), device="cpu", precision="float32")
    about = {
        "architecture": clip.architecture,
        "quick_gelu": clip.quick_gelu,
        "logit_scale": clip.logit_scale,
        **clip.identity.description,
    }
    return clip.version, Golden.of(clip), about


def _take_name(finished: Path, folder: Path) -> None:
    try:
        os.rename(finished, folder)
    except OSError as error:
        if not folder.exists():
            raise CheckpointError(f"{folder} cannot be written ({error.strerror}).") from error
        shutil.rmtree(finished, ignore_errors=True)  # another process published the same weights meanwhile
    else:
        # Before the caller writes the row: after a power cut, a registered version must have its folder.
        sync_folder(folder.parent)


def _description(folder: Path, manifest: Manifest) -> dict[str, Any]:
    if manifest.kind == "full":
        return manifest.about
    content: dict[str, Any] = json.loads((folder / DESCRIPTION_FILE).read_text(encoding="utf-8"))
    return content
