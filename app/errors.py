"""Every error of the service: its code, its HTTP status, and whether the same request may succeed later.

    ServiceError
      InvalidRequest 422  MalformedBody 400, TooMany, TextTooLong; InvalidImage > UnusableImage; InvalidArchive;
                          and what a job asks for: UnusableRecord, UnusableTeacher, OverLimit, ModelNotAllowed
      Unauthorized 401    SessionEnded, KeyExpired        Forbidden 403    MissingScope, ForeignOrigin, SourceForbidden
      NotFound 404        UnknownRecord, NoLog, NoItem    Conflict 409     NameTaken, RecordInUse, JobStateConflict
      BodyTimeout 408     UploadTimeout, UploadTooSlow    BodyTooLarge 413 BodyTooComplex, UploadTooLarge
      Overloaded 429      KeyLimitReached, TooManyJobs    Unavailable 503  StoreUnavailable, ModelNotReady, OutOfMemory
      and alone: InternalError 500, NoDatabase 501, DeadlineExceeded 504, DiskReserve and StorageFull 507

A new error code is a class here, or an entry of `codes` if nothing tells it apart from others by its class. The first
line of its docstring says when the error occurs and what to do. It is shown in the OpenAPI description of the routes
that name the class in `responses=describe_errors(...)`, and in docs/reference/errors.md, which `make errors` generates.

Other codes are defined elsewhere. Those of a ModelError are in its subclasses (models/errors.py, and beside features of
`models` and the registry). Those that only a failed job can have are in JOB_FAILURES below. The client's own are in
sds_clip/client/errors.py.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

logger = logging.getLogger(__name__)

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
    """An error with a place in the API. One handler renders it for HTTP, and workers use it too.

    A subclass inherits its parent's status and retryability unless it names its own. `type` follows from the
    status: it tells a client whose fault the error is. A class that always says the same says it here.
    """

    code: str = "internal_error"
    message: str = ""
    param: str | None = None
    retry_after_s: int | None = None
    codes: ClassVar[Mapping[str, str]] = {}
    """The codes, with their meanings, of a class whose code depends on what it is about, such as `too_many_images`."""
    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False

    def __init_subclass__(
        cls, *, code: str, status: int | None = None, retryable: bool | None = None
    ) -> None:
        super().__init_subclass__()
        cls.code = code
        if status is not None:
            cls.status = status
            cls.type = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        if retryable is not None:
            cls.retryable = retryable

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        param: str | None = None,
        index: int | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message or self.message)
        self.message = message or self.message
        self.code = code or self.code
        self.param = self.param if param is None else param
        self.index = index
        self.retry_after_s = self.retry_after_s if retry_after_s is None else retry_after_s


# The request, its address and its body


class InvalidRequest(ServiceError, code="invalid_request", status=422):
    """A field of the request is invalid; `param` names the field, and `index` the item of a list."""

    others: Sequence["InvalidRequest"] = ()
    """The errors of other fields of the same request."""


class MalformedBody(InvalidRequest, code="malformed_body", status=400):
    """The body is not valid JSON or multipart/form-data; correct it, then send it again."""


class UnknownParameter(InvalidRequest, code="unknown_parameter"):
    """The route has no query parameter of this name; remove it, or correct its name."""


class NotFound(ServiceError, code="not_found", status=404):
    """The route does not exist; GET /openapi.json lists all routes."""


class MethodNotAllowed(ServiceError, code="method_not_allowed", status=405):
    """The route does not accept this method; the Allow header lists the methods that it accepts."""


class BodyTimeout(ServiceError, code="body_timeout", status=408, retryable=True):
    """The body did not arrive in time; send it again, or send less."""


class BodyTooLarge(ServiceError, code="body_too_large", status=413):
    """The body is larger than this route accepts; send less in one request."""


class BodyTooComplex(BodyTooLarge, code="body_too_complex"):
    """The body has more fields, items or escapes than this service can hold; send several requests."""


class UnsupportedMediaType(ServiceError, code="unsupported_media_type", status=415):
    """The route does not read this media type; send JSON or, where allowed, multipart/form-data."""


# Who may ask


class Unauthorized(ServiceError, code="unauthorized", status=401):
    """The request has no API key, or its key is unknown; send a valid key."""


class SessionEnded(Unauthorized, code="session_ended"):
    """The browser's session has expired or was ended, or its key was deleted or has expired; sign in again."""


class KeyExpired(Unauthorized, code="key_expired"):
    """The API key was valid until the time that the message names; ask the server's operator for a new one."""


class Forbidden(ServiceError, code="forbidden", status=403):
    """The key lacks the required scope, or the request's host, origin or path is not allowed."""


class MissingScope(Forbidden, code="missing_scope"):
    """The API key lacks the scope that the message names; use a key that has it."""


class ForeignHost(Forbidden, code="foreign_host"):
    """A server without keys does not accept this Host; use localhost, or add it to SDS_CLIP_ALLOWED_HOSTS."""


class ForeignOrigin(Forbidden, code="foreign_origin"):
    """A web page of another origin can use neither a server without keys nor a session; send an API key."""


class WrongCsrfToken(Forbidden, code="wrong_csrf_token"):
    """A session's change lacks the session's CSRF token in X-CSRF-Token; GET /session returns the token."""


# Capacity, time and faults of the server


class Overloaded(ServiceError, code="overloaded", status=429, retryable=True):
    """The server has no capacity for this request now; try again after the time in Retry-After."""


class KeyLimitReached(Overloaded, code="key_limit"):
    """The API key has reached a limit of its own, which the message names; finish something, or try again later."""

    def __init__(
        self, limit: str, value: float, *, retry_after_s: int, advice: str = "try again later"
    ) -> None:
        self.limit = limit
        super().__init__(
            f"This API key has reached its limit {limit}, which is {value}; {advice}.",
            retry_after_s=retry_after_s,
        )


class InternalError(ServiceError, code="internal_error", retryable=True):
    """An unexpected error occurred in the server; its log has the details under the request's id."""


class Unavailable(ServiceError, code="unavailable", status=503, retryable=True):
    """The server is starting, shutting down or not responding; try again later."""


class BuffersFull(Unavailable, code="buffers_full"):
    """Request bodies fill the memory that the server reserves for them; try again."""

    message = "The server is receiving too much data at the moment; try again."
    retry_after_s = 1


class OutOfMemory(Unavailable, code="out_of_memory"):
    """The server ran out of memory for this request; send it again later, or send less at once."""

    message = "The server ran out of memory for this request; send it again later, or send less at once."
    retry_after_s = 5


class DeadlineExceeded(ServiceError, code="deadline_exceeded", status=504, retryable=True):
    """The answer was not ready before the deadline; send fewer items, or try again later."""


class DiskReserve(ServiceError, code="disk_reserve", status=507, retryable=True):
    """Only the reserve is free on the server's disk; nothing new is accepted until there is space."""


class StorageFull(ServiceError, code="storage_full", status=507, retryable=True):
    """The server's disk is full, or a quota is used up; nothing that was sent is kept."""

    message = "The server's disk is full, so nothing was saved. Free some space, then send the request again."


# Texts, labels and templates


class TooMany(InvalidRequest, code="too_many"):
    """The request has more items of one kind than the server allows; send several requests."""

    codes: ClassVar[Mapping[str, str]] = {
        "too_many_images": "The request has more images than the server allows; send several requests.",
        "too_many_texts": "The request has more texts than the server allows; send several requests.",
        "too_many_labels": "The request has more labels than the server allows; send several requests.",
        "too_many_templates": "The request has more templates than the server allows; send fewer of them.",
        "too_many_prompts": "Labels times templates is more than the server allows; send fewer labels or templates.",
    }

    def __init__(self, what: Counted, message: str, *, param: str) -> None:
        super().__init__(message, code=f"too_many_{what}", param=param)


class TextTooLong(InvalidRequest, code="text_too_long"):
    """A text, label or filled template is longer than the server allows, or than the model reads; shorten it."""


class InvalidText(InvalidRequest, code="invalid_text"):
    """A text is empty, or contains half of a surrogate pair, which is not a character; correct the text."""


class InvalidTemplate(InvalidRequest, code="invalid_template"):
    """A template has no place for the label; write {} where it goes, as in 'a photo of a {}'."""


class TokenIds(InvalidRequest, code="token_ids", status=400):
    """The input is made of token ids, of which each model has its own; send the text itself."""


class NoImageUri(InvalidRequest, code="no_image_uri", status=400):
    """A string of the input is the data URI of something that is no image; send an image, or the text in an object."""


class DimensionsNotOffered(InvalidRequest, code="dimensions_not_offered", status=400):
    """The model was not trained for shorter vectors of that length; ask for the whole vectors."""


# Images. The decoder's codes are those of the classes in models/images/decode.py, sent as an InvalidImage.


class InvalidImage(InvalidRequest, code="invalid_image"):
    """An image cannot be decoded, or is over a limit; the message says why. Most images get a more precise code."""


class UnusableImage(InvalidImage, code="invalid_image"):
    """An image is not sent as it should be, is too much for the decoder, or is not where its URL leads."""

    codes: ClassVar[Mapping[str, str]] = {
        "invalid_base64": "An image is not valid base64; use the standard alphabet, with padding.",
        "invalid_data_uri": "An image is not a valid data URI; write it as data:image/png;base64,...",
        "image_is_path": "The request has the path of an image file where the file's content belongs; send the "
        "content.",
        "image_over_memory_limit": "Decoding the image could take more memory than SDS_CLIP_MAX_DECODE_BYTES allows; "
        "make it smaller.",
        "image_url_forbidden": "An image's URL is not valid, or does not lead to a public host on port 80 or 443.",
        "image_url_failed": "An image's URL could not be reached, or did not answer with a file.",
        "image_url_timeout": "An image's URL did not send its whole answer in the time allowed.",
    }


class ImageUrlDisabled(InvalidRequest, code="image_url_disabled"):
    """This server does not fetch images from URLs; send the image itself."""


# Models in service


class UnknownModel(InvalidRequest, code="unknown_model", status=404):
    """The server does not serve a model of this name; GET /models lists the models that it serves."""


class ClassesBuilding(Unavailable, code="classes_building"):
    """The server is still encoding the label set for this model; the message tells the progress."""


class RegistryAway(Unavailable, code="registry_away"):
    """The server cannot read which version the name stands for, and never read it before; try again."""


class ModelNotReady(Unavailable, code="model_not_ready"):
    """The version that the name stands for is not loaded, and no other can answer; try again later."""


class NothingToServe(Unavailable, code="unavailable", retryable=False):
    """The default model cannot be served until the operator acts; the code names the cause."""

    type = "server_error"


class VersionLoading(Unavailable, code="version_loading"):
    """The version that the request names is still being loaded; try again later."""


class VersionUnusable(Unavailable, code="version_unusable"):
    """The server cannot load the version that the request names; the server's log says why."""


# The database and its records


class NoDatabase(ServiceError, code="no_database", status=501):
    """This server has no database for jobs, data sets and versions; start it with `sds-clip up`."""


class StoreUnavailable(Unavailable, code="store_unavailable"):
    """The database is unreachable, locked or full; the request may or may not have taken effect."""

    message = "The database does not respond; try again."
    retry_after_s = 2


class DataFolderAway(Unavailable, code="data_folder_away"):
    """The server's data folder is not the one of its database, or does not answer; try again later."""

    message = (
        "The server's data folder is not the one of its database, or does not answer, perhaps because it is not "
        "mounted. Try again later. GET /models/status has the reason."
    )
    retry_after_s = 10


class StoreBusy(Unavailable, code="store_busy"):
    """Too many requests are waiting for the database; try again."""


class UnknownRecord(NotFound, code="not_found"):
    """No job, version, data set or alias has this id or name."""

    codes: ClassVar[Mapping[str, str]] = {
        "job_not_found": "There is no job with this id or name.",
        "version_not_found": "There is no version with this id; GET /models lists the versions.",
        "alias_not_found": "There is no alias with this name.",
        "dataset_not_found": "There is no data set with this id or name.",
    }

    def __init__(self, what: RecordKind, *, param: str | None = None) -> None:
        code = f"{what}_not_found"
        super().__init__(self.codes[code], code=code, param=param)


class UnusableRecord(InvalidRequest, code="unusable_record"):
    """The job names a data set or version that is unknown, rejected or deleted; name another one."""


class Conflict(ServiceError, code="conflict", status=409):
    """The job, data set, version or alias is not in the state that the request assumes."""


_SPOKEN: Mapping[RecordKind, str] = {
    "job": "job",
    "version": "version",
    "alias": "alias",
    "dataset": "data set",
}


class NameTaken(Conflict, code="name_taken"):
    """Another of your jobs or data sets has this name; the message has its id."""

    def __init__(self, what: RecordKind, name: str, taken_by: str) -> None:
        super().__init__(
            f"Your {_SPOKEN[what]} {taken_by} is already called {name}; choose another name.", param="name"
        )


class AmbiguousName(Conflict, code="ambiguous_name"):
    """Several jobs or data sets that you see have this name, or several versions begin with it; use a whole id."""

    SHOWN: ClassVar[int] = 3

    def __init__(self, what: RecordKind, name: str, ids: Sequence[str]) -> None:
        shown = ", ".join(ids[: self.SHOWN]) + (" and others" if len(ids) > self.SHOWN else "")
        super().__init__(
            f"{name[:128]} stands for several {_SPOKEN[what]}s: {shown}. Use the id of the one that you mean."
        )


class RecordInUse(Conflict, code="in_use"):
    """Something still uses what the request would delete; the message names it."""


class FilesOutside(Conflict, code="files_outside"):
    """The record's files are outside the folder for its kind, by their path or a link; the operator must correct it."""


# Jobs


class InvalidConfiguration(InvalidRequest, code="invalid_configuration"):
    """The fields of the job contradict each other; the message says how."""


class OverLimit(InvalidRequest, code="over_limit"):
    """The job asks for more than the operator's limits allow; the message names the limit."""


class ModelNotAllowed(InvalidRequest, code="model_not_allowed"):
    """The job names a model or teacher that the operator of this server does not allow."""


class UnusableTeacher(InvalidRequest, code="unusable_teacher"):
    """The job names a teacher whose folder cannot teach: another kind of model, or parts that are missing or mixed."""


class DatasetFormat(InvalidRequest, code="dataset_format"):
    """The job needs a data set of another format; the message names the format."""


class TooManyJobs(Overloaded, code="too_many_jobs"):
    """The server accepts no further jobs for now; try again later, or cancel some jobs."""


class IdempotencyMismatch(InvalidRequest, code="idempotency_key_reused"):
    """The Idempotency-Key was used for a different request; use a new key for a new request."""

    message = "This Idempotency-Key was used for a different request; use a new key for a new request."
    param = "Idempotency-Key"


class IdempotencyInFlight(Conflict, code="idempotency_in_flight", retryable=True):
    """A request with the same Idempotency-Key is still in progress; try again in a moment."""

    message = "A request with this Idempotency-Key is still in progress; try again in a moment."
    param = "Idempotency-Key"
    retry_after_s = 1


class JobStateConflict(Conflict, code="job_state"):
    """The job's status does not allow this; for example, a job that has succeeded cannot be cancelled."""


class InputsGone(Conflict, code="inputs_gone"):
    """The job cannot be retried because a data set or version that it needs was rejected or deleted."""


class NoLog(NotFound, code="no_log"):
    """There is no log: only a fine-tuning job that has started has one; the version that it made keeps it."""


class NoReport(NotFound, code="no_report"):
    """The job has no report: it has one once it has succeeded, until its files are deleted."""


class NoItems(NotFound, code="no_items"):
    """The job has no items. What a job has measured has them once it has succeeded, until its files are deleted."""


class NotComparable(InvalidRequest, code="not_comparable"):
    """The two jobs did not measure the same items in the same way; the message says what differs."""


class NoItem(NotFound, code="no_item"):
    """There is no sample or picture with this number; the lists say which there are."""


class LeaseLost(Conflict, code="lease_lost"):
    """Another worker holds the job, or it has ended; only workers get this error, and stop the job."""


# Versions and aliases


class InvalidAlias(InvalidRequest, code="invalid_alias"):
    """An alias cannot have this name, because the name has another meaning; choose another name."""


class AliasMoved(Conflict, code="alias_moved", retryable=True):
    """The alias is not at the generation that the request expects; read it again before you decide."""


class AliasLocked(Conflict, code="alias_locked"):
    """The alias is locked, and nothing moves it, not even `force`; the message says who locked it and why."""


class NotBetter(Conflict, code="not_better"):
    """The job that made the version compared it with the alias's version and found it no better."""


class NothingToRollBack(Conflict, code="nothing_to_roll_back"):
    """The alias has no earlier version to go back to, or all of them were deleted."""


class NotPublished(NotFound, code="version_not_published"):
    """The server has no files of the version: the version is the operator's own model, or was deleted."""


class CannotExport(Conflict, code="cannot_export"):
    """Full weights cannot be made: the version's base is not available, or gives a different result."""


class VersionDamaged(Conflict, code="version_damaged"):
    """The version's files are not those that were published; use another one, or run its job again."""

    # 409 and not retryable: the same request succeeds once the version was published again, and no sooner.

    def __init__(self, version: str, *, param: str) -> None:
        super().__init__(
            f"Version {version[:12]} is damaged: its files, or those of a version that it is based on, are not "
            "the published ones. Use another version, or submit the same job again.",
            param=param,
        )


class VersionGone(Conflict, code="version_gone", retryable=True):
    """A version's files were removed before it was registered; only workers get this, and publish again."""


# Data sets


class UploadTimeout(BodyTimeout, code="upload_timeout"):
    """The upload took longer than the server allows; send less at once, or use a faster connection."""


class UploadTooSlow(BodyTimeout, code="upload_too_slow"):
    """The upload stopped or was too slow; send it again over a faster connection."""


class UploadTooLarge(BodyTooLarge, code="upload_too_large"):
    """The upload has more bytes than the server allows; send less."""


class EmptyUpload(InvalidRequest, code="upload_empty"):
    """The upload has no bytes; send the content of the file."""


class UploadMissing(InvalidRequest, code="upload_missing"):
    """The uploaded files were lost before they were checked; send them again."""


class FilesUnreadable(ServiceError, code="files_unreadable", retryable=True):
    """The server could not read the data set's files when it checked them; add the data set again."""


class SourceMissing(InvalidRequest, code="source_missing"):
    """The path is allowed, but nothing that can be used is there; check the path."""


class SourceForbidden(Forbidden, code="source_forbidden"):
    """The path is outside the folders that the operator opened for data sets."""


class NoSamples(NotFound, code="no_samples"):
    """The samples are not listed: the data set is not ready, or an older release checked it; add it again."""


class PictureGone(NotFound, code="picture_gone", status=410):
    """The picture's file, or the data set that it belongs to, no longer exists."""


class NoTables(ServiceError, code="no_tables", status=501):
    """The picture is in a Parquet file, and this server lacks what reads it; install the extra `tables`."""


class DatasetBusy(ServiceError, code="dataset_busy", status=409, retryable=True):
    """The data set is being received, checked or deleted; try again later."""


# Archives


class InvalidArchive(InvalidRequest, code="archive_invalid"):
    """The archive cannot be used; the message says why."""

    codes: ClassVar[Mapping[str, str]] = {
        "archive_invalid": "The archive cannot be used; the message says why.",
        "archive_format": "The file is not a tar, tar.gz or zip archive, or is an unusual kind of these; pack it "
        "again.",
        "archive_truncated": "The archive ends too early; send the whole file.",
        "archive_damaged": "The archive contradicts itself or its checksums, or has data after its end; pack it again.",
        "archive_encrypted": "The archive, or an entry of it, is encrypted; pack it without a password.",
        "archive_member_unsafe": "An entry of the archive is not a plain file or folder, or has an unsafe name.",
        "archive_member_duplicate": "Two entries of the archive have the same name, perhaps in another case or Unicode "
        "form.",
        "archive_bomb": "Unpacked, the archive would be suspiciously large for its size; upload an uncompressed tar "
        "instead.",
    }
    param = "file"

    def __init__(self, message: str, *, code: str | None = None, member: str | None = None) -> None:
        super().__init__(message if member is None else f"{shown(member)}: {message}", code=code)
        self.member = member
        """The name of the entry at fault, as the archive has it."""


class ArchiveTooLarge(InvalidArchive, code="archive_too_large", status=413):
    """The archive exceeds a limit on its number of entries or bytes, or what its key may store; send less."""

    codes: ClassVar[Mapping[str, str]] = {}


# Failures of jobs


class JobFailure(NamedTuple):
    """What a code of a job's `error` means, and whether another attempt or a retry may succeed."""

    retryable: bool
    meaning: str


JOB_FAILURES = {
    "process_died": JobFailure(
        True, "The job's process died or stalled SDS_CLIP_MAX_ATTEMPTS times without making progress."
    ),
    "interrupted_too_often": JobFailure(True, "The job lost its worker more than 100 times; see its events."),
    "run_time_exceeded": JobFailure(
        True, "The job ran for its limit (SDS_CLIP_MAX_RUN_TIME_S); the time of a retry starts at 0 again."
    ),
    "storage_failed": JobFailure(True, "The worker's disk failed for a reason other than lack of space."),
    "out_of_memory": JobFailure(False, "The device has too little memory for the job; use smaller batches."),
    "dataset_rejected": JobFailure(
        False, "The job was waiting for a data set that was then rejected; see the data set's problems."
    ),
    "dataset_missing": JobFailure(False, "The files of a data set are gone; send them again."),
    "version_changed": JobFailure(False, "A version's files do not hold the weights that were registered."),
    "nothing_learned": JobFailure(
        False, "Training changed no weights; train for longer, or with a higher lr."
    ),
}
"""The failures that are neither a ServiceError nor a ModelError. A worker gives all three the same form: a JobError."""


def shown(name: str) -> str:
    """A name as shown in messages: quoted, with control characters escaped, and shortened if long."""
    return repr(name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "...")


def without_folder(message: str, folder: Path) -> str:
    """Replace paths below one of the server's folders by paths relative to it."""
    return message.replace(f"{folder}/", "").replace(str(folder), "the data folder")


def body(error: ServiceError) -> dict[str, Any]:
    """The body of every error: {"error": {type, code, message, param, index?, errors?}}."""
    content = {"type": error.type, "code": error.code, **_place(error)}
    if isinstance(error, InvalidRequest) and error.others:
        content["errors"] = [_place(each) for each in (error, *error.others)]
    return {"error": content}


def _place(error: ServiceError) -> dict[str, Any]:
    place = {"message": error.message, "param": error.param}
    return place if error.index is None else {**place, "index": error.index}


def log_cause(error: ServiceError) -> None:
    """Log why the server failed, which the answer does not say. Other errors say all that there is to know."""
    if isinstance(error, InternalError | OutOfMemory):
        logger.error("A request failed with %s.", error.code, exc_info=error)
