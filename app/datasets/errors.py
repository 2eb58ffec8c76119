"""The reasons for which a data set is refused. The tree extends the one in app/errors.py.

ServiceError
├── InvalidRequest
│   ├── EmptyUpload          422  no bytes
│   ├── SourceMissing        422  nothing at a path that may be named
│   └── InvalidArchive       422  `member` names the entry, where it is one entry's fault
│       ├── ArchiveFormat    422  none of tar, tar.gz and zip, by content; an unusual kind of these
│       ├── ArchiveTruncated 422  ends too early
│       ├── ArchiveDamaged   422  contradicts itself, or has something after its end
│       ├── ArchiveEncrypted 422
│       ├── UnsafeMember     422  a link, a device, a sparse file, or a name that leads elsewhere
│       ├── DuplicateMember  422  two entries of one name, on some disk or other
│       ├── ArchiveBomb      422  unpacks to far more than it is
│       └── ArchiveTooLarge  413  over a limit on entries or bytes
├── BodyTooLarge
│   └── UploadTooLarge       413
├── Forbidden
│   └── SourceForbidden      403  a path outside the folders that the operator named
├── DatasetBusy              409  another process receives, checks or removes it
└── StorageFull              507  the disk is full; nothing of the data set is left on it
"""

from app.errors import BodyTooLarge, Forbidden, InvalidRequest, ServiceError

_SHOWN_CHARS = 200


class EmptyUpload(InvalidRequest):
    """The upload has no bytes."""

    code = "upload_empty"


class UploadTooLarge(BodyTooLarge):
    """The upload is over the limit."""

    code = "upload_too_large"


class SourceMissing(InvalidRequest):
    """The path may be named, and nothing that can be used is there."""

    code = "source_missing"


class SourceForbidden(Forbidden):
    """The path is outside the folders that the operator named."""

    code = "source_forbidden"


class DatasetBusy(ServiceError):
    """Another process, or another thread, is at work on the data set."""

    status = 409
    code = "dataset_busy"
    type = "invalid_request_error"
    retryable = True


class StorageFull(ServiceError):
    """No space is left on the disk, or a quota is used up."""

    status = 507
    code = "storage_full"
    retryable = True

    def __init__(self) -> None:
        super().__init__(
            "The server's disk is full, so nothing was kept; free some space, then send it again."
        )


class InvalidArchive(InvalidRequest):
    """The archive cannot be used as it is. `member` is the entry's name as the archive has it."""

    code = "archive_invalid"

    def __init__(self, message: str, *, member: str | None = None) -> None:
        super().__init__(message if member is None else f"{shown(member)}: {message}", param="file")
        self.member = member


class ArchiveFormat(InvalidArchive):
    """None of tar, tar.gz and zip, judged by content and never by name; or an unusual kind of these."""

    code = "archive_format"


class ArchiveTruncated(InvalidArchive):
    """The archive ends too early."""

    code = "archive_truncated"

    def __init__(self) -> None:
        super().__init__("The archive ends too early; send the whole file.")


class ArchiveDamaged(InvalidArchive):
    """The archive contradicts itself or its checksums, or has something after its end."""

    code = "archive_damaged"


class ArchiveEncrypted(InvalidArchive):
    """The archive, or an entry of it, is encrypted."""

    code = "archive_encrypted"


class UnsafeMember(InvalidArchive):
    """An entry that is no plain file or folder, or whose name leads elsewhere."""

    code = "archive_member_unsafe"


class DuplicateMember(InvalidArchive):
    """An entry whose name another has, on this disk or on one that knows no capital letters."""

    code = "archive_member_duplicate"


class ArchiveBomb(InvalidArchive):
    """The archive unpacks to far more than it is."""

    code = "archive_bomb"


class ArchiveTooLarge(InvalidArchive):
    """Over a limit on entries or bytes."""

    status = 413
    code = "archive_too_large"


def shown(name: str) -> str:
    """A name as shown in messages: quoted, with control characters escaped, and shortened if long."""
    return repr(name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "...")
