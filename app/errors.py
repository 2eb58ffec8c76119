"""The errors of the service that belong to no feature. A new error code is a subclass here, or beside its feature.

The errors of the database are in `app/store/errors.py`, those of uploads and archives in `app/datasets/errors.py`,
and a few stand beside the one function that raises them (`app/jobs/model_resolver.py`, `app/registry/download.py`).
A route lists those that it can answer with in `responses=describe_errors(...)`.

    ServiceError
    ├── InvalidRequest           422  a field is wrong; `param` names it, `index` the item
    │   ├── InvalidImage         422  code from the decoder: image_truncated, image_too_large, ...
    │   └── UnknownModel         404  a model that this server does not serve
    ├── MalformedBody            400  not the JSON or multipart that it claims to be
    ├── Unauthorized             401  no key, or an unknown one
    ├── Forbidden                403  a key without the scope, or a foreign Host or Origin
    ├── NotFound                 404  no such route
    ├── MethodNotAllowed         405
    ├── BodyTimeout              408  the body did not arrive in time
    ├── BodyTooLarge             413
    ├── UnsupportedMediaType     415
    ├── Overloaded               429  the queue is full; Retry-After says when to come back
    ├── InternalError            500
    ├── Unavailable              503  draining or not answering
    │   ├── ClassesBuilding      503  a label set is still being encoded
    │   ├── RegistryAway         503  which version a name stands for cannot be read
    │   ├── ModelNotReady        503  the version that a name stands for is not loaded
    │   ├── NothingToServe       503  /ready alone: waiting does not bring the default model back
    │   └── OutOfMemory          503  there was not enough memory for the request at that moment
    ├── DeadlineExceeded         504  not computed within the request's deadline
    └── DiskReserve              507  the disk is full but for its reserve

An error owns its code, its status and whether a retry can help. `body` below makes its response body, and
`app/responses.py` sends it.
"""

from pathlib import Path
from typing import Any, ClassVar


class ConfigurationError(ValueError):
    """The operator's settings cannot be used; the message says what to change."""


class ServiceError(Exception):
    """An error with a place in the API: rendered by one handler, and read by workers alike."""

    status: ClassVar[int] = 500
    code: str = "internal_error"
    type: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False

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


class InvalidRequest(ServiceError):
    """A field of the request is wrong."""

    status = 422
    code = "invalid_request"
    type = "invalid_request_error"


class InvalidImage(InvalidRequest):
    """An image cannot be decoded, or is over a limit."""

    code = "invalid_image"


class UnknownModel(InvalidRequest):
    """The named model is not served here."""

    status = 404
    code = "unknown_model"


class MalformedBody(InvalidRequest):
    """The body is not the JSON or multipart that it claims to be."""

    status = 400
    code = "malformed_body"


class Unauthorized(ServiceError):
    """No API key, or an unknown one."""

    status = 401
    code = "unauthorized"
    type = "authentication_error"


class Forbidden(ServiceError):
    """The key lacks the scope, or the Host or Origin is foreign."""

    status = 403
    code = "forbidden"
    type = "permission_error"


class NotFound(ServiceError):
    """No such route."""

    status = 404
    code = "not_found"
    type = "invalid_request_error"


class MethodNotAllowed(ServiceError):
    """The route exists, with another method."""

    status = 405
    code = "method_not_allowed"
    type = "invalid_request_error"


class BodyTimeout(ServiceError):
    """The body did not arrive in time."""

    status = 408
    code = "body_timeout"
    type = "invalid_request_error"
    retryable = True


class BodyTooLarge(ServiceError):
    """The body is over the limit."""

    status = 413
    code = "body_too_large"
    type = "invalid_request_error"


class UnsupportedMediaType(ServiceError):
    """The body is neither JSON nor multipart/form-data."""

    status = 415
    code = "unsupported_media_type"
    type = "invalid_request_error"


class Overloaded(ServiceError):
    """The queue is full."""

    status = 429
    code = "overloaded"
    type = "overloaded_error"
    retryable = True


class InternalError(ServiceError):
    """Something is broken here; the log has it under the request's id."""

    retryable = True


class Unavailable(ServiceError):
    """Draining or not answering."""

    status = 503
    code = "unavailable"
    type = "overloaded_error"
    retryable = True


class ClassesBuilding(Unavailable):
    """A label set is still being encoded for the model in service."""

    code = "classes_building"


class RegistryAway(Unavailable):
    """Which version a name stands for cannot be read, and this process does not know it."""

    code = "registry_away"


class ModelNotReady(Unavailable):
    """The version that a name stands for is not loaded here, and no other answers for it."""

    code = "model_not_ready"


class NothingToServe(Unavailable):
    """The default model cannot be served until somebody acts: its files are damaged, for example."""

    type = "server_error"
    retryable = False


class OutOfMemory(Unavailable):
    """There was not enough memory for the request at that moment."""

    code = "out_of_memory"

    def __init__(self) -> None:
        super().__init__(
            "The server ran out of memory for this request; send it again later, or send less at once.",
            retry_after_s=5,
        )


class DeadlineExceeded(ServiceError):
    """The request was not computed within its deadline."""

    status = 504
    code = "deadline_exceeded"
    type = "overloaded_error"
    retryable = True


class DiskReserve(ServiceError):
    """The disk is full but for its reserve; nothing new is taken until there is room."""

    status = 507
    code = "disk_reserve"
    retryable = True


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
