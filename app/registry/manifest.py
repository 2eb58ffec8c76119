"""A version's folder: weights, golden embeddings and `sds_clip_version.json` with the hash of every file.

    delta   sds_clip_delta.json, delta.safetensors, golden.safetensors (models/checkpoints/delta_file.py), log.jsonl
    full    open_clip_config.json, weights and tokenizer in open_clip's layout, golden.safetensors

Both kinds are also checkpoints: `local-dir:FOLDER` loads them.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from sds_clip.models.checkpoints.model_config import CONFIG_FILE
from sds_clip.models.checkpoints.references import DESCRIPTION_FILE, is_delta
from sds_clip.models.errors import CheckpointError, first_line
from sds_clip.models.files import sha256_of

MANIFEST_FILE = "sds_clip_version.json"
FORMAT = 1


class VersionError(CheckpointError):
    """A version's folder is incomplete, damaged, or holds another version than expected."""

    code: ClassVar[str] = "bad_version"


class DamagedFiles(VersionError):
    """A version's folder does not hold the files that were published."""

    code: ClassVar[str] = "version_damaged"


@dataclass(frozen=True)
class FileHash:
    """The hash and size of one file, as in a manifest."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """The content of a version's manifest."""

    version: str
    kind: Literal["delta", "full"]
    job: str
    """The job that published the version."""
    files: dict[str, FileHash]
    about: dict[str, Any]
    """For full weights, the facts that a delta has in its own description."""

    @property
    def size_bytes(self) -> int:
        """The size of the version's files together, without the manifest."""
        return sum(file.size for file in self.files.values())


def kind_of(folder: Path) -> Literal["delta", "full"]:
    """Whether a folder holds a delta or full weights. Raises VersionError if it holds neither."""
    if is_delta(folder):
        return "delta"
    if (folder / CONFIG_FILE).is_file():
        return "full"
    raise VersionError(
        f"{folder} contains neither {DESCRIPTION_FILE} nor {CONFIG_FILE}, so it is not a version."
    )


def write_manifest(folder: Path, version: str, job: str, about: dict[str, Any]) -> Manifest:
    """Hash the files in the folder and write the manifest.

    Raises VersionError for anything but plain files.
    """
    files = {path.name: hash_file(path) for path in _plain_files(folder)}
    manifest = Manifest(version, kind_of(folder), job, files, about)
    text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read a version's manifest.

    Raises VersionError if it is missing (the folder was never finished), damaged, or of an unknown format.
    """
    try:
        content: dict[str, Any] = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(
                f"its format is {content['format']!r}, but this program reads only format {FORMAT}"
            )
        files = {
            str(name): FileHash(str(file["sha256"]), int(file["size"]))
            for name, file in content["files"].items()
        }
        about = dict(content["about"])
        return Manifest(str(content["version"]), kind_of(folder), str(content["job"]), files, about)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, VersionError):
            raise
        raise VersionError(
            f"{folder / MANIFEST_FILE} cannot be read ({type(error).__name__}: {first_line(error)}): the version "
            "is incomplete or damaged. Publish it again."
        ) from error


def verify(folder: Path, version: str) -> Manifest:
    """Recompute the hash of every file.

    Raises DamagedFiles, which names the file, if one is missing, changed or unexpected, or if the folder is
    another version's.
    """
    try:
        return _verify(folder, version)
    except VersionError as error:
        raise DamagedFiles(str(error)) from error


def _verify(folder: Path, version: str) -> Manifest:
    manifest = read_manifest(folder)
    if manifest.version != version:
        raise VersionError(
            f"{folder} contains version {manifest.version[:12]}, not {version[:12]}; it was moved. "
            "Publish the version again."
        )
    names = {path.name for path in _plain_files(folder)} - {MANIFEST_FILE}
    if names != manifest.files.keys():
        other = sorted(names ^ manifest.files.keys())[0]
        state = "is missing" if other in manifest.files else "does not belong there"
        raise VersionError(f"{folder / other} {state}. Publish version {version[:12]} again.")
    for name, expected in manifest.files.items():
        if hash_file(folder / name) != expected:
            raise VersionError(
                f"{folder / name} is not the file that was published: it was changed or is damaged. "
                f"Publish version {version[:12]} again."
            )
    return manifest


def hash_file(path: Path) -> FileHash:
    """The SHA-256 and size of a file. Raises VersionError if it cannot be read."""
    try:
        return FileHash(sha256_of(path), path.stat().st_size)
    except OSError as error:
        raise VersionError(f"{path} cannot be read ({error.strerror or error}).") from error


def _plain_files(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise VersionError(f"{folder} cannot be read ({error.strerror or error}).") from error
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise VersionError(f"{path} is not a plain file, but a version contains only plain files.")
    return paths
