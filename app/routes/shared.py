"""What the routes of jobs, data sets and versions share."""

from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query, Request

from sds_clip.app.backend import Backend
from sds_clip.app.edge.auth import requires
from sds_clip.app.errors import (
    BodyTimeout,
    BodyTooLarge,
    Conflict,
    DataFolderAway,
    Forbidden,
    InternalError,
    InvalidRequest,
    KeyLimitReached,
    MalformedBody,
    NoDatabase,
    Overloaded,
    Unauthorized,
    Unavailable,
    UnknownRecord,
    UnsupportedMediaType,
)
from sds_clip.app.keys import Caller
from sds_clip.app.serving.engine import Engine
from sds_clip.app.store.paging import Search

KEY = (Unauthorized, Forbidden, KeyLimitReached)
"""The errors of any request that needs a key."""
BODY = (MalformedBody, BodyTimeout, BodyTooLarge, UnsupportedMediaType)
"""Those of any request with a body."""
READING = (*KEY, UnknownRecord, InvalidRequest, InternalError, NoDatabase, Unavailable)
"""The errors of any request to these routers, which is their default."""
WRITING = (*BODY, Conflict, Overloaded)
"""The additional errors of a request with a body."""

ReadModels = Annotated[Caller, Depends(requires("infer"))]
Train = Annotated[Caller, Depends(requires("train"))]
ReadOrTrain = Annotated[Caller, Depends(requires("infer", "train"))]
"""What the services show depends on the scope that the key has."""
Administer = Annotated[Caller, Depends(requires("admin"))]
ChangeModels = Annotated[Caller, Depends(requires("train", "admin"))]
"""The services check which versions and aliases a key without the scope admin may change."""

After = Annotated[
    str | None,
    Query(
        max_length=128,
        description="Return the items that follow this one. Pass the last id of the previous page.",
    ),
]
Owner = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Return only what the key of this name owns. Keys without the scope admin see only their own in "
        "any case.",
    ),
]


async def _search(
    name: Annotated[
        str | None,
        Query(
            max_length=128,
            description="Return only what has a name that begins with this text. A version's names are its id and its "
            "aliases.",
        ),
    ] = None,
    created_after: Annotated[
        float | None,
        Query(
            allow_inf_nan=False,
            description="Return only what was made after this time, in seconds since 1970.",
        ),
    ] = None,
    created_before: Annotated[
        float | None,
        Query(
            allow_inf_nan=False,
            description="Return only what was made before this time, in seconds since 1970.",
        ),
    ] = None,
) -> Search:
    return Search(name, created_after, created_before)


SearchDep = Annotated[Search, Depends(_search)]
Limit = Annotated[int, Query(ge=1, le=100, description="The largest number of items to return.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[!-~]{1,255}$",
        description="A unique text of 1 to 255 visible ASCII characters, without spaces. If you send a request again "
        "with the same key and body, you get the job of the first request and no second job is made.",
    ),
]


def of_app(name: str) -> Any:
    """A dependency on what the app holds under a name. Async, or FastAPI would fetch it in a thread."""

    async def find(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(find)


EngineDep = Annotated[Engine, of_app("engine")]


async def backend(request: Request) -> Backend:
    """The process's backend. Raises NoDatabase."""
    found: Backend | None = request.app.state.backend
    if found is None:
        raise NoDatabase(
            "This server has no database for jobs, data sets and versions. Start it with `sds-clip up`, or "
            "name a database in SDS_CLIP_DATABASE_URL."
        )
    return found


BackendDep = Annotated[Backend, Depends(backend)]


async def _backend_with_files(backend: BackendDep) -> Backend:
    """For requests that read, write, remove or verify files. Raises NoDatabase, DataFolderAway."""
    if backend.folder.trouble is not None:
        raise DataFolderAway
    return backend


BackendWithFiles = Annotated[Backend, Depends(_backend_with_files)]


async def _last_event_id(
    given: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="The id of the last event that a reconnecting client has seen. It takes precedence over "
            "`after`, where there is one.",
        ),
    ] = None,
) -> int | None:
    """The number that a reconnecting client sends. Raises InvalidRequest."""
    if given is None or given == "":
        return None
    if not (given.isascii() and given.isdecimal()) or len(given) > 18:
        raise InvalidRequest("Last-Event-ID must be the number of an event.", param="Last-Event-ID")
    return int(given)


LastEventId = Annotated[int | None, Depends(_last_event_id)]


EventNumber = Annotated[int, Query(ge=0, lt=2**62, description="Return only events with a higher number.")]


async def _job_id(
    caller: Train, backend: BackendDep, job_id: Annotated[str, Path(description="The job's id or name.")]
) -> str:
    return await backend.jobs.id_of(caller, job_id)


async def _dataset_id(
    caller: Train,
    backend: BackendDep,
    dataset_id: Annotated[str, Path(description="The data set's id or name.")],
) -> str:
    return await backend.datasets.id_of(caller, dataset_id)


JobId = Annotated[str, Depends(_job_id)]
DatasetId = Annotated[str, Depends(_dataset_id)]
