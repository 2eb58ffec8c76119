"""The client's errors.

ClientError
├── ConnectionFailed         no complete response arrived
├── UnreadableFile           a local file cannot be read; nothing was sent
├── JobFailed                a job failed or was cancelled while it was waited for
├── WaitTimeout              a job has not ended in the time that it was waited for
└── APIError                 the service answered with an error
    ├── InvalidRequest       400, 413, 415, 422 and other 4xx
    ├── AuthenticationError  401  no key, or an unknown one
    ├── PermissionDenied     403  the key lacks the scope
    ├── NotFound             404
    ├── Conflict             409  the resource is not in the state that the caller assumed
    ├── Overloaded           429
    └── ServerError          5xx
        └── Unavailable      503
"""

from dataclasses import KW_ONLY, dataclass

from sds_clip.client.schemas import JobInfo

CLIENT_CODES = {
    "connection_failed": "No complete response arrived; `reached` says whether the service may have carried out the "
    "request.",
    "file_unreadable": "A local file cannot be read; nothing was sent.",
    "model_swapped": "The model was swapped several times while the requests of one call were sent; call again.",
    "cannot_join": "The answers to the requests of one call cannot be joined; send fewer texts and images in one call.",
    "cancelled": "The job was cancelled while it was waited for.",
    "wait_timeout": "The job had not ended in the time that it was waited for, and goes on.",
}
"""The codes that the client itself gives; docs/reference/errors.md lists those of the service."""


@dataclass(eq=False, repr=False)
class ClientError(Exception):
    """The base of all errors. `code` is for programs and `message` for people; `param` names the invalid field.

    `str(error)` begins with the field. If the field is a list, `index` follows: `images[3]: ...`.
    """

    message: str
    _: KW_ONLY
    code: str | None = None
    status: int | None = None
    param: str | None = None
    index: int | None = None
    request_id: str | None = None
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def __str__(self) -> str:
        if self.param is None:
            return self.message
        where = self.param if self.index is None else f"{self.param}[{self.index}]"
        return f"{where}: {self.message}"


class ConnectionFailed(ClientError):
    """No complete response arrived. If `reached` is true, the service may have carried out the request."""

    def __init__(self, message: str, *, reached: bool) -> None:
        super().__init__(message, code="connection_failed")
        self.reached = reached


class UnreadableFile(ClientError):
    """A local file cannot be read; nothing was sent."""

    def __init__(self, message: str, *, param: str, index: int | None = None) -> None:
        super().__init__(message, code="file_unreadable", param=param, index=index)


class JobFailed(ClientError):
    """A job failed or was cancelled; `job` is what the service last said about it."""

    def __init__(self, job: JobInfo) -> None:
        if error := job.get("error"):
            message, code, param = error["message"], error["code"], error.get("param")
        else:
            message, code, param = f"It was {job['status']}.", job["status"], None
        super().__init__(f"Job {job['id']}: {message}", code=code, param=param)
        self.job = job


class WaitTimeout(ClientError):
    """A job has not ended in the time that it was waited for, and goes on; `job` is what the service says about it."""

    def __init__(self, job: JobInfo, timeout_s: float) -> None:
        progress = job["progress"]
        steps = "" if progress["steps"] is None else f" of {progress['steps']}"
        super().__init__(
            f"Job {job['id']} is still {job['status']} after {timeout_s:g} s, at step {progress['step']}{steps}. It "
            "goes on; wait again, or cancel it.",
            code="wait_timeout",
        )
        self.job = job


class APIError(ClientError):
    """The service answered with an error."""


class InvalidRequest(APIError):
    """The request, or one of its fields, is invalid."""


class AuthenticationError(APIError):
    """The API key is missing or unknown: pass `api_key`, or set SDS_CLIP_API_KEY."""


class PermissionDenied(APIError):
    """The API key lacks the scope that the call needs."""


class NotFound(APIError):
    """The resource does not exist."""


class Conflict(APIError):
    """The resource is not in the state that the caller assumed."""


class Overloaded(APIError):
    """The service has no capacity for this request at the moment."""


class ServerError(APIError):
    """The service failed; its log has the details under `request_id`."""


class Unavailable(ServerError):
    """The service is starting or stopping, or cannot reach its database."""


_BY_STATUS: dict[int, type[APIError]] = {
    401: AuthenticationError,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    429: Overloaded,
    503: Unavailable,
}


def of_status(status: int) -> type[APIError]:
    return _BY_STATUS.get(status, ServerError if status >= 500 else InvalidRequest)
