"""GET /models/{version}, its download and deletion; promote and rollback."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from app.bodies import reads
from app.errors import CannotExport, Overloaded, RecordInUse
from app.openapi import describe_errors, describe_json
from app.routes.shared import READING, WRITING, Administer, BackendDep, ReadModels, Train
from app.routes.streamed import LOG, TAR, LogResponse, TarResponse
from app.schemas.listing import Deleted
from app.schemas.versions import AliasInfo, PromoteRequest, RollbackRequest, VersionDetail

Archive: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A tar of the version's folder, which `local-dir:` loads once it is unpacked.",
        "content": {TAR: {"schema": {"type": "string", "format": "binary"}}},
    }
}

router = APIRouter(tags=["models"], responses=describe_errors(*READING))


@router.get("/models/{version}")
async def version(caller: ReadModels, backend: BackendDep, version: str) -> VersionDetail:
    """A version, by its id or an alias: where it comes from, what it lies over, how good it is."""
    return await backend.run(backend.versions.get, version)


@router.post(
    "/models/{version}/promote",
    responses=describe_errors(*WRITING),
    openapi_extra=describe_json(PromoteRequest),
)
async def promote(
    caller: Administer,
    backend: BackendDep,
    version: str,
    body: Annotated[PromoteRequest, Depends(reads(PromoteRequest, form=False))],
) -> AliasInfo:
    """Point an alias at a version; every serving process follows within seconds."""
    return AliasInfo.model_validate(await backend.versions.promote(version, body, caller))


@router.post(
    "/models/{alias}/rollback",
    responses=describe_errors(*WRITING),
    openapi_extra=describe_json(RollbackRequest),
)
async def rollback(
    caller: Administer,
    backend: BackendDep,
    alias: str,
    body: Annotated[RollbackRequest, Depends(reads(RollbackRequest, form=False))],
) -> AliasInfo:
    """Point an alias at the version that it pointed at before."""
    return AliasInfo.model_validate(await backend.run(backend.versions.roll_back, alias, body, caller))


@router.get(
    "/models/{version}/download",
    response_class=Response,
    responses=describe_errors(Overloaded, CannotExport) | Archive,
)
async def download(
    caller: Train,
    backend: BackendDep,
    version: str,
    weights: Annotated[
        Literal["published", "full"],
        Query(
            description="`published`: a delta where it is one. `full`: whole weights, made for this answer."
        ),
    ] = "published",
) -> Response:
    """A version's files as a tar."""
    return TarResponse(await backend.versions.download(version, full=weights == "full"))


@router.get("/models/{version}/log", response_class=Response, responses=LOG)
async def log(caller: Train, backend: BackendDep, version: str) -> Response:
    """The log of the run that made a version, by its id or an alias, as JSON lines."""
    return LogResponse(await backend.run(backend.versions.log, version), version)


@router.delete("/models/{version}", responses=describe_errors(RecordInUse))
async def delete_version(caller: Administer, backend: BackendDep, version: str) -> Deleted:
    """Delete a version and its files, unless an alias, a job or another version needs it. Again is no error."""
    await backend.versions.delete(version)
    return Deleted(id=version, object="model")
