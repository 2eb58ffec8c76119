"""GET /models/{version}, its download and deletion; promote and rollback."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from app.bodies import reads
from app.errors import CannotExport, Overloaded, RecordInUse
from app.openapi import describe_errors, describe_json
from app.registry.download import Download
from app.routes.shared import READING, WRITING, Administer, BackendDep, ReadModels, Train
from app.run_log import LOG, LogResponse
from app.schemas.listing import Deleted
from app.schemas.versions import AliasInfo, PromoteRequest, RollbackRequest, VersionDetail

TAR = "application/x-tar"
Archive: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A tar archive of the version's folder. Once it is unpacked, a reference with "
        "`local-dir:` loads it.",
        "content": {TAR: {"schema": {"type": "string", "format": "binary"}}},
    }
}

router = APIRouter(tags=["models"], responses=describe_errors(*READING))


@router.get("/models/{version}")
async def version(caller: ReadModels, backend: BackendDep, version: str) -> VersionDetail:
    """Return a version by its id or an alias: where it comes from, what it is based on, and how good it is."""
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
    """Point an alias at a version. Every serving process follows within seconds."""
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
            description="Which files to send. `published`: the files as published, which are a delta if the "
            "version is one. `full`: the full weights, which are made for this answer."
        ),
    ] = "published",
) -> Response:
    """Download a version's files as a tar archive."""
    return TarResponse(await backend.versions.download(version, full=weights == "full"))


@router.get("/models/{version}/log", response_class=Response, responses=LOG)
async def log(caller: Train, backend: BackendDep, version: str) -> Response:
    """Return the log of the run that made a version as JSON lines. Name the version by its id or an alias."""
    return LogResponse(await backend.run(backend.versions.log, version), version)


@router.delete("/models/{version}", responses=describe_errors(RecordInUse))
async def delete_version(caller: Administer, backend: BackendDep, version: str) -> Deleted:
    """Delete a version and its files, unless an alias, a job or another version needs it.

    It is no error to delete a version twice.
    """
    await backend.versions.delete(version)
    return Deleted(id=version, object="model")


class TarResponse(StreamingResponse):
    """A version as a tar stream. What was made for the download is removed however the response ends."""

    def __init__(self, download: Download) -> None:
        headers = {
            "Content-Length": str(download.size_bytes),
            "Content-Disposition": f'attachment; filename="{download.root}.tar"',
        }
        chunks: Iterator[bytes] = download.chunks()
        super().__init__(chunks, media_type=TAR, headers=headers)
        self._holder: ExitStack = download.holder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._holder:
            await super().__call__(scope, receive, send)
