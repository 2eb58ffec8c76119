"""The background check, which turns an upload or registered files into a data set that is ready or rejected.

Each format has its own `FormatChecker`. The worker supplies it, because it reads with sds_clip.models.data, which the
service does not import.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sds_clip.app.datasets.archive_limits import ENTRY_BYTES, ArchiveLimits
from sds_clip.app.datasets.folders import ARCHIVE, FILES, Claim, Content, DatasetFolders, set_content
from sds_clip.app.datasets.hashes import write_hashes
from sds_clip.app.datasets.roots import SourceRoots
from sds_clip.app.datasets.samples import SAMPLES, Sample, write_samples
from sds_clip.app.datasets.unpack import Progress, check_shards, check_tars_within, unpack
from sds_clip.app.errors import KeyLimitReached, ServiceError
from sds_clip.models.errors import ModelError
from sds_clip.models.findings import Finding, Findings

WAIT_S = 60.0
"""How long a check waits for files that another process holds, for example one on a machine that was lost."""
_MAX_MESSAGE_CHARS = 1000


@dataclass(frozen=True)
class CheckResult:
    """The outcome of a check: ready or rejected, and why. It is stored in the record unchanged."""

    ready: bool
    content_hash: str | None
    """SHA-256 of everything that a model sees, independent of location. None if the set was rejected."""
    counts: Mapping[str, int]
    problems: tuple[Finding, ...]
    """The first problems; `problem_count` counts all."""
    problem_count: int
    size_bytes: int | None = None
    """What the files of an archive take, unpacked, with ENTRY_BYTES for each file and folder. None for others."""
    statistics: Mapping[str, Any] | None = None
    samples: Iterable[Sample] = field(default=(), compare=False)
    """All samples in their order, those included that cannot be used. They can be iterated over once."""

    @classmethod
    def of(
        cls,
        findings: Findings,
        counts: Mapping[str, int],
        content_hash: str | None = None,
        hidden: Path | None = None,
    ) -> "CheckResult":
        """The result is ready if there is a hash.

        Messages name files below the folder `hidden` by their path from there, so that the server's own paths
        stay private.
        """

        def shown(message: str) -> str:
            if hidden is not None:
                message = message.replace(f"{hidden}/", "").replace(str(hidden), "the data set")
            return message if len(message) <= _MAX_MESSAGE_CHARS else message[:_MAX_MESSAGE_CHARS] + "..."

        listed = tuple(Finding(finding.code, shown(finding.message)) for finding in findings.listed)
        return cls(content_hash is not None, content_hash, counts, listed, findings.count)


class FormatChecker(Protocol):
    """Checks one format."""

    def __call__(self, content: Content, *, progress: Progress | None = None) -> CheckResult:
        """Read every item and decode every image. The result lists problems with the data; none is raised."""


def rejected(error: ServiceError | ModelError, *, hidden: Path | None = None) -> CheckResult:
    findings = Findings()
    findings.add(error.code, str(error))
    return CheckResult.of(findings, {}, hidden=hidden)


Record = Callable[[CheckResult], None]
"""A function that commits the result to the data set's record. Raises KeyLimitReached if its key has no room left."""


def check_upload(
    folders: DatasetFolders,
    dataset_id: str,
    checker: FormatChecker,
    record: Record,
    *,
    limits: ArchiveLimits = ArchiveLimits(),
    progress: Progress | None = None,
) -> CheckResult:
    """Unpack and check an upload, publish it if it is ready, and record the result.

    It may be called again after a crash at any point, and then starts over. Problems with the data reject the
    set. Other errors propagate and leave the upload for another attempt.

    Raises: DatasetBusy, StorageFull, FileNotFoundError (no upload: its data set was removed).
    """
    with folders.claim(dataset_id, wait_s=WAIT_S) as claim:
        try:
            result = _checked(claim, checker, limits, progress)
        except ServiceError as error:
            if error.retryable:
                raise
            result = rejected(error)
        try:
            record(result)
        except KeyLimitReached as error:  # the key's other data sets have grown meanwhile
            result = rejected(error)
            record(result)
        claim.drop_upload()
        if not result.ready:
            claim.drop_set()
        return result


def _checked(
    claim: Claim, checker: FormatChecker, limits: ArchiveLimits, progress: Progress | None
) -> CheckResult:
    archive = claim.upload / ARCHIVE
    if archive.exists():
        files = claim.folder / FILES
        unpack(archive, files, limits, progress=progress)
        check_tars_within(files, files.rglob("*.tar"), limits, progress=progress)
        result = checker(Content((files,), is_folder=True), progress=progress)
        if result.ready:
            size_bytes = sum(
                ENTRY_BYTES + (entry.stat().st_size if entry.is_file() else 0) for entry in files.rglob("*")
            )
            write_hashes(claim.folder, progress=progress)
            write_samples(claim.folder / SAMPLES, result.samples)
            claim.publish()
            return replace(result, size_bytes=size_bytes)
        return result
    # Shards become the data set by a single rename, so after a crash they may already be published.
    folder = claim.upload if claim.upload.exists() else claim.content
    shards = set_content(folder)
    check_shards(shards.paths, limits, progress=progress)
    result = checker(shards, progress=progress)
    if result.ready:
        write_samples(folder / SAMPLES, result.samples)
        if folder == claim.upload:
            claim.publish_upload()
    return result


def check_registered(
    content: Content, roots: SourceRoots, checker: FormatChecker, *, progress: Progress | None = None
) -> CheckResult:
    """Check data that stay in place, as `SourceRoots.resolve` found them."""
    try:
        if content.is_folder:
            folder = content.paths[0]
            check_tars_within(folder, roots.files(folder), progress=progress)
        else:
            check_shards(content.paths, progress=progress)
        return checker(content, progress=progress)
    except ServiceError as error:
        if error.retryable:
            raise
        return rejected(error)
