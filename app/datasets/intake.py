"""From a whole upload to a data set that is ready or rejected: what the background check does, top to bottom."""

from collections.abc import Callable
from pathlib import Path

from app.datasets.checks import Checker, CheckResult, Content, Progress, rejected
from app.datasets.folders import Claim, DatasetFolders
from app.datasets.limits import ArchiveLimits
from app.datasets.roots import SourceRoots
from app.datasets.shards import check_shards, check_tars_within
from app.datasets.unpack import unpack
from app.errors import ServiceError

ARCHIVE = "archive"
"""In an upload's folder: an archive, to be unpacked."""
SHARDS = "shards"
"""In an upload's or a data set's folder: the folder of shards, each under its `shard_name`."""
FILES = "files"
"""In a data set's folder: what its archive held."""

Record = Callable[[CheckResult], None]
"""Commits the result to the data set's record."""


def check_upload(
    folders: DatasetFolders,
    dataset_id: str,
    checker: Checker,
    record: Record,
    *,
    limits: ArchiveLimits = ArchiveLimits(),
    progress: Progress | None = None,
) -> CheckResult:
    """Unpack and check an upload, publish it if it is ready, and record the result.

    May be called again after a crash anywhere, and is then done again as a whole. What is wrong with the data
    rejects the set; other errors go through, and leave the upload for another try.

    Raises: DatasetBusy, StorageFull, FileNotFoundError (no upload: its data set has been removed).
    """
    with folders.claim(dataset_id) as claim:
        try:
            result = _checked(folders, dataset_id, claim, checker, limits, progress)
        except ServiceError as error:
            if error.retryable:
                raise
            result = rejected(error)
        record(result)
        claim.drop_upload()
        if not result.ready:
            claim.drop_set()
        return result


def _checked(
    folders: DatasetFolders,
    dataset_id: str,
    claim: Claim,
    checker: Checker,
    limits: ArchiveLimits,
    progress: Progress | None,
) -> CheckResult:
    upload = folders.upload(dataset_id)
    archive = upload / ARCHIVE
    if archive.exists():
        files = claim.folder / FILES
        unpack(archive, files, limits, progress=progress and (lambda count, size_bytes: progress(count, 0)))
        check_tars_within(files, files.rglob("*.tar"), limits, progress=progress)
        result = checker(Content((files,), is_folder=True), progress=progress)
        if result.ready:
            claim.publish()
        return result
    # Shards become the data set by one rename, so after a crash they may be there already.
    published = folders.content(dataset_id)
    shards = set_content(upload if upload.exists() else published)
    check_shards(shards.paths, limits, progress=progress)
    result = checker(shards, progress=progress)
    if result.ready and upload.exists():
        claim.publish_upload()
    return result


def check_registered(
    content: Content, roots: SourceRoots, checker: Checker, *, progress: Progress | None = None
) -> CheckResult:
    """Check data that stay where they are, as `SourceRoots.resolve` found them."""
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


def set_content(folder: Path) -> Content:
    """What a data set's folder holds, for whoever trains on it or evaluates with it.

    Raises: FileNotFoundError.
    """
    files = folder / FILES
    if files.is_dir():
        return Content((files,), is_folder=True)
    return Content(tuple(sorted((folder / SHARDS).iterdir())), is_folder=False)
