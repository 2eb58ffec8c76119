"""Every error of the service: its code, its HTTP status, and whether the same request may succeed later.

A new error code is a class here. Its docstring says in its first line when the error occurs and what to do; that
line is shown in the OpenAPI description of the routes that name the class in `responses=describe_errors(...)`, and
in docs/reference/errors.md, which `make errors` generates.

The codes of a ModelError stand in its subclasses (models/errors.py, and beside features of `models` and the registry),
those that only a job's failure has in JOB_FAILURES below, and the client's own in sds_clip/client/errors.py.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, get_args

Counted = Literal["images", "texts", "labels", "templates", "prompts"]
RecordKind = Literal["job", "version", "alias", "dataset"]

_SHOWN_CHARS = 200
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    429: "overloaded_error",
    503: "overloaded_error",
    504: "overloaded_error",
}


class ConfigurationError(ValueError):
    """The operator's settings cannot be used; the message says what to change."""


class ServiceError(Exception):
    """An error with a place in the API: rendered by one handler, and read by workers alike.

    A subclass inherits its parent's status and retryability unless it names its own. `type` follows from the
    status: it tells a client whose fault the error is.
    """

    code: str = "internal_error"
    codes: ClassVar[tuple[str, ...]] = ()
    """All codes of a class whose instances have `code` and the name of a thing in one: `too_many_images`."""
    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False

    def __init_subclass__(
        cls,
        *,
        code: str,
        status: int | None = None,
        type: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init_subclass__()
        cls.code = code
        if status is not None:
            cls.status = status
            cls.type = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        if type is not None:
            cls.type = type
        if retryable is not None:
            cls.retryable = retryable

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        index: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.param = param
        self.index = index
        self.retry_after_s = retry_after_s


# The request, its address and its body


class InvalidRequest(ServiceError, code="invalid_request", status=422):
    """A field of the request is wrong; `param` names it, and `index` the item of a list."""


class MalformedBody(InvalidRequest, code="malformed_body", status=400):
    """The body is not the JSON or multipart/form-data that it claims to be."""


class UnknownParameter(InvalidRequest, code="unknown_parameter"):
    """The route has no query parameter of that name."""


class NotFound(ServiceError, code="not_found", status=404):
    """There is no such route; GET /openapi.json lists them."""


class MethodNotAllowed(ServiceError, code="method_not_allowed", status=405):
    """The route exists, with another method; the Allow header lists those that it takes."""


class BodyTimeout(ServiceError, code="body_timeout", status=408, retryable=True):
    """The body did not arrive in time; send it again, or send less."""


class BodyTooLarge(ServiceError, code="body_too_large", status=413):
    """The body is larger than this route takes; send less at once."""


class UnsupportedMediaType(ServiceError, code="unsupported_media_type", status=415):
    """The body is neither JSON nor multipart/form-data, or not what this route reads of the two."""


# Who may ask


class Unauthorized(ServiceError, code="unauthorized", status=401):
    """The request has no API key, or an unknown one."""


class Forbidden(ServiceError, code="forbidden", status=403):
    """The key lacks the scope for this, or the request comes from where it may not."""


class MissingScope(Forbidden, code="missing_scope"):
    """The API key lacks the scope that the message names."""


class ForeignHost(Forbidden, code="foreign_host"):
    """A service without keys is not served under this Host; use localhost, or add it to allowed_hosts."""


class ForeignOrigin(Forbidden, code="foreign_origin"):
    """A web page of another origin may not use a service without keys; serve with a keys file for that."""


# Capacity, time and faults of the server


class Overloaded(ServiceError, code="overloaded", status=429, retryable=True):
    """The server has no capacity for this now; Retry-After says when to come back."""


class InternalError(ServiceError, code="internal_error", retryable=True):
    """Something is broken in the server; its log has the details under the request's id."""


class Unavailable(ServiceError, code="unavailable", status=503, retryable=True):
    """The server is starting, shutting down or not answering."""


class BuffersFull(Unavailable, code="buffers_full"):
    """The server is receiving as many bodies as it may hold; try again."""


class OutOfMemory(Unavailable, code="out_of_memory"):
    """The server had too little memory for the request at that moment; send it later, or send less at once."""

    def __init__(self) -> None:
        super().__init__(
            "The server ran out of memory for this request; send it again later, or send less at once.",
            retry_after_s=5,
        )


class DeadlineExceeded(ServiceError, code="deadline_exceeded", status=504, retryable=True):
    """The request was not computed within its deadline."""


class DiskReserve(ServiceError, code="disk_reserve", status=507, retryable=True):
    """The server's disk is full but for its reserve; nothing new is taken until there is room."""


class StorageFull(ServiceError, code="storage_full", status=507, retryable=True):
    """The server's disk is full, or a quota is used up; nothing of what was sent is kept."""

    def __init__(self) -> None:
        super().__init__(
            "The server's disk is full, so nothing was kept; free some space, then send it again."
        )


# Texts, labels and templates


class TooMany(InvalidRequest, code="too_many"):
    """A list in the request, or the prompts that it makes, is longer than allowed; send several requests."""

    codes = tuple(f"too_many_{what}" for what in get_args(Counted))

    def __init__(self, what: Counted, message: str, *, param: str) -> None:
        super().__init__(message, code=f"too_many_{what}", param=param)


class TextTooLong(InvalidRequest, code="text_too_long"):
    """A text, label or filled template has more characters than the server allows; shorten it."""


class InvalidText(InvalidRequest, code="invalid_text"):
    """A text holds half of a surrogate pair, which is not a character."""


class InvalidTemplate(InvalidRequest, code="invalid_template"):
    """A template has no place for the label; write {} where it goes, as in 'a photo of a {}'."""


# Images. The decoder's codes are those of the classes in models/images.py, sent as an InvalidImage.


class InvalidImage(InvalidRequest, code="invalid_image"):
    """An image cannot be decoded, or is over a limit; the code and the message say why."""


class InvalidBase64(InvalidImage, code="invalid_base64"):
    """An image is not base64 of the standard alphabet with its padding."""


class InvalidDataUri(InvalidImage, code="invalid_data_uri"):
    """An image begins as a data URI and is not of the form data:image/png;base64,..."""


class ImageIsPath(InvalidImage, code="image_is_path"):
    """The path of a file was sent in place of the file; send its content."""


class ImageOverMemoryLimit(InvalidImage, code="image_over_memory_limit"):
    """Decoding the image can take more memory than max_decode_bytes allows; make it smaller."""


class ImageUrlDisabled(InvalidRequest, code="image_url_disabled"):
    """This server does not fetch images; send the image itself."""


class ImageUrlForbidden(InvalidImage, code="image_url_forbidden"):
    """An image's URL is not valid, or not one of a public host on port 80 or 443."""


class ImageUrlFailed(InvalidImage, code="image_url_failed"):
    """An image's URL could not be reached, or did not answer with a file."""


class ImageUrlTimeout(InvalidImage, code="image_url_timeout"):
    """An image's URL did not answer in full within the time allowed."""


# Models in service


class UnknownModel(InvalidRequest, code="unknown_model", status=404):
    """The named model is not served here; GET /models lists what is."""


class ClassesBuilding(Unavailable, code="classes_building"):
    """A label set is still being encoded for the model in service; the message has the progress."""


class RegistryAway(Unavailable, code="registry_away"):
    """The server cannot read which version the name stands for, and does not know it from before."""


class ModelNotReady(Unavailable, code="model_not_ready"):
    """The version that the name stands for is not loaded here, and no other answers for it."""


class NothingToServe(Unavailable, code="unavailable", type="server_error", retryable=False):
    """The default model cannot be served until somebody acts; the code is that of the cause."""


class VersionLoading(Unavailable, code="version_loading"):
    """The version that the request names is still being loaded."""


class VersionUnusable(Unavailable, code="version_unusable"):
    """The version that the request names is here and cannot be loaded; the server's log has the reason."""


# The database and its records


class NoDatabase(ServiceError, code="no_database", status=501):
    """This server keeps no jobs, data sets and versions; start it with `sds-clip up`, or name a database."""


class StoreUnavailable(Unavailable, code="store_unavailable"):
    """The database is away, locked or full; what was asked may or may not have happened."""

    def __init__(self) -> None:
        super().__init__("The database does not answer; try again.", retry_after_s=2)


class StoreBusy(Unavailable, code="store_busy"):
    """Too many requests wait for the database; try again."""


class UnknownRecord(NotFound, code="not_found"):
    """No job, version, alias or data set of that id exists here."""

    codes = tuple(f"{what}_not_found" for what in get_args(RecordKind))

    def __init__(self, what: RecordKind, *, param: str | None = None) -> None:
        noun = what.replace("dataset", "data set")
        super().__init__(f"No {noun} of that id exists here.", code=f"{what}_not_found", param=param)


class UnusableRecord(InvalidRequest, code="unusable_record"):
    """A job names a data set or version that is unknown, rejected or deleted."""


class Conflict(ServiceError, code="conflict", status=409):
    """A job, data set, version or alias is in another state than the request assumes."""


class RecordInUse(Conflict, code="in_use"):
    """What was to be deleted is still needed; the message says by what."""


# Jobs


class InvalidConfiguration(InvalidRequest, code="invalid_configuration"):
    """The fields of a job contradict each other."""


class OverLimit(InvalidRequest, code="over_limit"):
    """A job asks for more than the operator's limits allow; the message names the limit."""


class ModelNotAllowed(InvalidRequest, code="model_not_allowed"):
    """A job names a model or teacher that this server's operator does not allow."""


class DatasetFormat(InvalidRequest, code="dataset_format"):
    """A job names a data set of another format than it needs there."""


class TooManyJobs(Overloaded, code="too_many_jobs"):
    """As many jobs are open as the server takes; try again later, or cancel some."""


class IdempotencyMismatch(InvalidRequest, code="idempotency_key_reused"):
    """The Idempotency-Key was used before with another request; use a new key for a new request."""

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used with another request; use a new key for a new request.",
            param="Idempotency-Key",
        )


class IdempotencyInFlight(Conflict, code="idempotency_in_flight", retryable=True):
    """A request with the same Idempotency-Key is being worked on; try again in a moment."""

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is being worked on; try again in a moment.",
            param="Idempotency-Key",
            retry_after_s=1,
        )


class JobStateConflict(Conflict, code="job_state"):
    """The job's status does not allow what was asked: one that has ended cannot be cancelled, for example."""


class InputsGone(Conflict, code="inputs_gone"):
    """The job cannot be retried, because a data set or version that it needs was rejected or deleted."""


class NoLog(NotFound, code="no_log"):
    """The job has no log: only a fine-tuning job that has begun has one, until its files are removed."""


class NoReport(NotFound, code="no_report"):
    """The job has no report: only an evaluation that succeeded has one."""


class LeaseLost(Conflict, code="lease_lost"):
    """Another worker holds the job, or it has ended; only workers see this, and stop without an effect."""


# Versions and aliases


class InvalidAlias(InvalidRequest, code="invalid_alias"):
    """An alias may not have this name, since it means something else; choose another."""


class AliasMoved(Conflict, code="alias_moved", retryable=True):
    """The alias has another generation than the request compared with; look again, then decide again."""


class NotBetter(Conflict, code="not_better"):
    """The version's own job compared it with the alias's version, and it was not better."""


class NothingToRollBack(Conflict, code="nothing_to_roll_back"):
    """The alias has no previous version, or that was deleted."""


class NotPublished(NotFound, code="version_not_published"):
    """The version has no files here: it is the operator's own model, or was deleted."""


class CannotExport(Conflict, code="cannot_export"):
    """Whole weights cannot be made of the version: its base cannot be had, or gives something else."""


class VersionDamaged(Conflict, code="version_damaged"):
    """The version's files are not those that were published; use another version, or submit its job again."""

    # 409 and not retryable: the same request succeeds once the version was published again, and no sooner.

    def __init__(self, version: str, *, param: str) -> None:
        super().__init__(
            f"Version {version[:12]} is damaged: its files, or those of a version that it lies over, are not what "
            "was published. Use another version, or submit the same job again.",
            param=param,
        )


class VersionGone(Conflict, code="version_gone", retryable=True):
    """A version's files were removed before it was registered; only workers see this, and publish it again."""


# Data sets


class UploadTimeout(BodyTimeout, code="upload_timeout"):
    """The upload took longer than the server allows; send less at once, or use a faster connection."""


class UploadTooSlow(BodyTimeout, code="upload_too_slow"):
    """The upload stood still or was too slow; send it again over a faster connection."""


class UploadTooLarge(BodyTooLarge, code="upload_too_large"):
    """The upload has more bytes than the server allows."""


class EmptyUpload(InvalidRequest, code="upload_empty"):
    """The upload has no bytes."""


class UploadMissing(InvalidRequest, code="upload_missing"):
    """The upload was gone before it was checked; send it again."""


class FilesUnreadable(ServiceError, code="files_unreadable"):
    """The server could not read the files of the data set to check them; send them again."""


class SourceMissing(InvalidRequest, code="source_missing"):
    """The path may be named, and nothing that can be used is there."""


class SourceForbidden(Forbidden, code="source_forbidden"):
    """The path is outside the folders that the operator named."""


class DatasetBusy(ServiceError, code="dataset_busy", status=409, retryable=True):
    """The data set is being received, checked or removed; try again."""


# Archives


class InvalidArchive(InvalidRequest, code="archive_invalid"):
    """The archive cannot be used as it is; the message says why."""

    def __init__(self, message: str, *, member: str | None = None) -> None:
        super().__init__(message if member is None else f"{shown(member)}: {message}", param="file")
        self.member = member
        """The name of the entry at fault, as the archive has it."""


class ArchiveFormat(InvalidArchive, code="archive_format"):
    """The file is by its content neither tar, tar.gz nor zip, or an unusual kind of these."""


class ArchiveTruncated(InvalidArchive, code="archive_truncated"):
    """The archive ends too early; send the whole file."""

    def __init__(self) -> None:
        super().__init__("The archive ends too early; send the whole file.")


class ArchiveDamaged(InvalidArchive, code="archive_damaged"):
    """The archive contradicts itself or its checksums, or has something after its end."""


class ArchiveEncrypted(InvalidArchive, code="archive_encrypted"):
    """The archive, or an entry of it, is encrypted."""


class UnsafeMember(InvalidArchive, code="archive_member_unsafe"):
    """An entry of the archive is no plain file or folder, or its name leads elsewhere."""


class DuplicateMember(InvalidArchive, code="archive_member_duplicate"):
    """Two entries of the archive have one name, or names that are one on disks that ignore capitals."""


class ArchiveBomb(InvalidArchive, code="archive_bomb"):
    """The archive unpacks to far more than it is."""


class ArchiveTooLarge(InvalidArchive, code="archive_too_large", status=413):
    """The archive is over a limit on entries or bytes."""


# Failures of jobs


class JobFailure(NamedTuple):
    """What a code of a job's `error` means, and whether another attempt or a retry may succeed."""

    retryable: bool
    meaning: str


JOB_FAILURES = {
    "process_died": JobFailure(
        True, "The job's process died or stalled, as often as max_attempts allows without progress."
    ),
    "interrupted_too_often": JobFailure(
        True, "The job lost its worker more than max_interruptions times; see its events."
    ),
    "run_time_exceeded": JobFailure(
        True, "The job ran for the max_run_time_s that it may; a retry's time begins at 0."
    ),
    "storage_failed": JobFailure(
        True, "The worker's disk cannot be used, for another reason than its space."
    ),
    "out_of_memory": JobFailure(False, "The device has not enough memory for the job; take smaller batches."),
    "dataset_rejected": JobFailure(
        False, "A data set that the job waited for was rejected; see its problems."
    ),
    "dataset_missing": JobFailure(False, "The files of a data set are gone; send it again."),
    "version_changed": JobFailure(False, "A version's files hold other weights than were registered."),
    "nothing_learned": JobFailure(False, "Training changed no weight; train longer or with a higher lr."),
}
"""The failures that are no ServiceError and no ModelError. A worker gives all three the same form: a JobError."""


def shown(name: str) -> str:
    """A name as shown in messages: quoted, with control characters escaped, and shortened if long."""
    return repr(name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "...")


def without_folder(message: str, folder: Path) -> str:
    """Replace paths below one of the server's folders by paths relative to it."""
    return message.replace(f"{folder}/", "").replace(str(folder), "the data folder")


def body(error: ServiceError) -> dict[str, Any]:
    """The body of every error: {"error": {type, code, message, param, index?}}."""
    content: dict[str, Any] = {
        "type": error.type,
        "code": error.code,
        "message": error.message,
        "param": error.param,
    }
    if error.index is not None:
        content["index"] = error.index
    return {"error": content}
