"""GET /models and /models/status; GET /models/{version}, its download and deletion; what is done to aliases."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from sds_clip.app.backend import Backend
from sds_clip.app.bodies import reads
from sds_clip.app.edge.auth import check_key, requires
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.errors import (
    AmbiguousName,
    CannotExport,
    FilesOutside,
    InvalidRequest,
    Overloaded,
    RecordInUse,
    ServiceError,
    Unavailable,
    UnknownModel,
    UnknownRecord,
)
from sds_clip.app.keys import Caller
from sds_clip.app.routes.shared import (
    KEY,
    READING,
    WRITING,
    Administer,
    After,
    BackendDep,
    BackendWithFiles,
    ChangeModels,
    Limit,
    Owner,
    ReadModels,
    SearchDep,
    Train,
    of_app,
)
from sds_clip.app.routes.streamed import LOG, TAR, log_response, tar_response
from sds_clip.app.schemas.listing import Deleted
from sds_clip.app.schemas.models import ModelsAndVersions, ServedModel, ServingStatus
from sds_clip.app.schemas.promotion import PromotionAnswer
from sds_clip.app.schemas.rollout import MovedAlias
from sds_clip.app.schemas.versions import (
    AliasInfo,
    LockRequest,
    PromoteRequest,
    PromotionList,
    RemoveRequest,
    RollbackRequest,
    VersionDetail,
)
from sds_clip.app.serving.engine import Engine
from sds_clip.app.serving.rollout import Rollout
from sds_clip.app.serving.served_models import ModelHandle
from sds_clip.app.serving.status import StatusBoard
from sds_clip.app.serving.version_cache import VersionCache
from sds_clip.app.store.alias_names import DEFAULT
from sds_clip.app.store.records import VersionStatus
from sds_clip.models.checkpoints.references import is_version

Archive: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A tar archive of the version's folder. Once it is unpacked, a reference with "
        "`local-dir:` loads it.",
        "content": {TAR: {"schema": {"type": "string", "format": "binary"}}},
    }
}


RolloutDep = Annotated[Rollout, of_app("rollout")]

# What a path into JSON can name in both databases.
_KEY = re.compile(r'[^"\\\x00-\x1f\x7f]+')

served = APIRouter(tags=["status"])
"""What needs no database."""
VersionName = Annotated[
    str,
    Path(
        description="The version's id, or its beginning: at least 8 digits that no other version that you see begins "
        "with. Where an alias is allowed too, it takes precedence over the beginning of an id."
    ),
]
registered = APIRouter(tags=["models"], responses=describe_errors(*READING, AmbiguousName))


@served.get(
    "/models",
    responses=describe_errors(*KEY, UnknownRecord, UnknownModel, AmbiguousName, InvalidRequest),
)
async def list_models(
    request: Request,
    caller: ReadModels,
    search: SearchDep,
    status: VersionStatus = VersionStatus.READY,
    owner: Owner = None,
    base: Annotated[
        str | None,
        Query(
            max_length=64,
            description="Return only versions that are deltas of this version: its id or the beginning of it, or a "
            "name that is served.",
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        Query(
            max_length=16,
            description="Return only versions whose job has this in its `metadata`, as `key:value`. Repeat it for "
            "several keys.",
        ),
    ] = None,
    after: After = None,
    limit: Limit = 20,
) -> ModelsAndVersions:
    """List the models that this process serves, the aliases, and the registered versions that you see.

    These are your own, the operator's models, and every version that an alias points to. All models and aliases are on
    the first page: `limit` and the filters hold for the versions.
    """
    wanted = _metadata(metadata or [])
    engine: Engine = request.app.state.engine
    base = await _id_of(request, caller, base)
    default = engine.models.current(DEFAULT)
    listed = ModelsAndVersions(
        models=[_described(model, default=model is default) for model in engine.models]
        if after is None
        else []
    )
    backend: Backend | None = request.app.state.backend
    if backend is None:
        return listed
    listed.bases, listed.teachers = backend.nameable.allowed, backend.nameable.teachers
    try:
        versions, aliases, has_more = await backend.versions.list(
            caller,
            status=status,
            owner=owner,
            base=base,
            metadata=wanted,
            search=search,
            after=after,
            limit=limit,
        )
    except Unavailable:  # what is served is known even without the registry
        return listed.model_copy(update={"registry": "away"})
    return listed.model_copy(
        update={"registry": "read", "aliases": aliases, "versions": versions, "has_more": has_more}
    )


@served.get(
    "/models/status",
    dependencies=[Depends(requires("infer"))],
    responses=describe_errors(*KEY),
)
async def get_serving_status(board: Annotated[StatusBoard, of_app("status")]) -> ServingStatus:
    """Return what each serving process serves, since when, and what it could not load."""
    return ServingStatus(processes=await board.all())


@registered.get("/models/{version}")
async def get_version(caller: ReadModels, backend: BackendDep, version: VersionName) -> VersionDetail:
    """Return a version by its id or an alias: where it comes from, what it is based on, and how good it is."""
    return await backend.versions.get(caller, version)


@registered.post("/models/{version}/promote", responses=describe_errors(*WRITING))
async def promote_version(
    request: Request,
    caller: ChangeModels,
    backend: BackendWithFiles,
    version: VersionName,
    rollout: RolloutDep,
    body: Annotated[PromoteRequest, Depends(reads(PromoteRequest, form=False))],
) -> PromotionAnswer:
    """Point an alias to a version. Every serving process follows within seconds; `wait_s` waits for that.

    A key without the scope admin can point an alias that was given to it to versions that its own jobs made. With
    `dry_run`, nothing is moved, and the answer says what would happen and what the gate says.
    """
    if body.owner and caller.is_admin:  # to others, a name that exists and one that does not answer the same
        check_key(request, body.owner)
    if body.dry_run:
        return await backend.versions.try_out(caller, version, body)
    return await rollout.follow(await backend.versions.promote(caller, version, body), body.wait_s)


@registered.post("/models/{alias}/rollback", responses=describe_errors(*WRITING))
async def rollback_alias(
    caller: ChangeModels,
    backend: BackendDep,
    alias: str,
    rollout: RolloutDep,
    body: Annotated[RollbackRequest, Depends(reads(RollbackRequest, form=False))],
) -> MovedAlias:
    """Point an alias to the version that it pointed to before its last promotion.

    Each further rollback goes one version further back. Deleted versions are skipped. A key without the scope admin can
    roll back an alias that was given to it.
    """
    return await rollout.follow(await backend.versions.roll_back(caller, alias, body), body.wait_s)


@registered.post("/models/{alias}/remove", responses=describe_errors(*WRITING))
async def remove_alias(
    caller: ChangeModels,
    backend: BackendDep,
    alias: str,
    rollout: RolloutDep,
    body: Annotated[RemoveRequest, Depends(reads(RemoveRequest, form=False))],
) -> AliasInfo:
    """Remove an alias. Its version and its audit stay. The alias `default` cannot be removed.

    Within seconds, no serving process answers for the name any more, unless it is also the name of one of the
    operator's models. A key without the scope admin can remove an alias that was given to it. It is no error to remove
    an alias twice. To create it again, promote a version.
    """
    removed = await backend.versions.remove(caller, alias, body)
    rollout.look_now()
    return removed


@registered.post("/models/{alias}/lock", responses=describe_errors(*WRITING))
async def lock_alias(
    caller: Administer,
    backend: BackendDep,
    alias: str,
    body: Annotated[LockRequest, Depends(reads(LockRequest, form=False))],
) -> AliasInfo:
    """Keep an alias where it is: until it is unlocked, no promotion, rollback or job moves it.

    An alias that is locked already keeps its first lock.
    """
    return await backend.versions.lock(caller, alias, body)


@registered.post("/models/{alias}/unlock", responses=describe_errors(*WRITING))
async def unlock_alias(
    caller: Administer,
    backend: BackendDep,
    alias: str,
    body: Annotated[LockRequest, Depends(reads(LockRequest, form=False))],
) -> AliasInfo:
    """Let an alias be moved again. It is no error to unlock an alias that is not locked."""
    return await backend.versions.unlock(caller, alias, body)


@registered.get(
    "/models/{version}/download",
    response_class=Response,
    responses=describe_errors(Overloaded, CannotExport, FilesOutside) | Archive,
)
async def download_version(
    caller: Train,
    backend: BackendWithFiles,
    version: VersionName,
    weights: Annotated[
        Literal["published", "full"],
        Query(
            description="Which files to send. `published`: the files as published, which are a delta if the "
            "version is one. `full`: the full weights, which are made for this answer."
        ),
    ] = "published",
) -> Response:
    """Download a version's files as a tar archive."""
    return tar_response(await backend.versions.download(caller, version, full=weights == "full"))


@registered.get(
    "/models/{version}/log", response_class=Response, responses=describe_errors(FilesOutside) | LOG
)
async def get_version_log(caller: Train, backend: BackendWithFiles, version: VersionName) -> Response:
    """Return the log of the run that made a version as JSON lines. Name the version by its id or an alias."""
    return log_response(await backend.versions.log(caller, version), version)


@registered.delete("/models/{version}", responses=describe_errors(RecordInUse, FilesOutside))
async def delete_version(caller: ChangeModels, backend: BackendWithFiles, version: VersionName) -> Deleted:
    """Delete a version and its files, unless an alias, a job or another version needs it.

    Only its owner and keys with the scope admin can delete it. It is no error to delete a version twice.
    """
    return Deleted(id=await backend.versions.delete(caller, version), object="model")


@registered.get("/promotions")
async def list_promotions(
    caller: ReadModels,
    backend: BackendDep,
    alias: Annotated[
        str | None, Query(max_length=64, description="Return only the lines about this alias.")
    ] = None,
    after: Annotated[
        int | None,
        Query(
            ge=0,
            lt=2**62,
            description="Return the lines that follow this one. Pass the last id of the previous page.",
        ),
    ] = None,
    limit: Limit = 20,
) -> PromotionList:
    """List who moved, locked, unlocked, removed or gave away which alias, when and why, newest first.

    A key without the scope admin sees the lines about the aliases that were given to it.
    """
    return await backend.versions.promotions(caller, alias=alias, before=after, limit=limit)


router = APIRouter()
router.include_router(served)  # first, because /models/{version} matches /models/status too
router.include_router(registered)


def _metadata(given: Sequence[str]) -> dict[str, str]:
    """The keys and values of `key:value` texts. Raises InvalidRequest."""
    wanted = dict[str, str]()
    for each in given:
        key, colon, value = each.partition(":")
        if not colon or not _KEY.fullmatch(key) or key in wanted:
            raise InvalidRequest(
                "Write what the metadata has to be as key:value, each key once. Keys with quotation marks, "
                "backslashes or control characters cannot be searched for.",
                param="metadata",
            )
        wanted[key] = value
    return wanted


async def _id_of(request: Request, caller: Caller, base: str | None) -> str | None:
    """The id of a base that was given by its id, a name that is served, or the beginning of its id.

    Raises UnknownModel, AmbiguousName.
    """
    if base is None or is_version(base):
        return base
    engine: Engine = request.app.state.engine
    versions: VersionCache = request.app.state.versions
    try:
        try:
            return engine.models.resolve(base).clip.version
        except UnknownModel:
            if (found := await versions.id_of(base, caller)) is None:
                raise
            return found
    except ServiceError as error:
        error.param = "base"
        raise


def _described(model: ModelHandle, *, default: bool) -> ServedModel:
    clip = model.clip
    return ServedModel(
        **model.info.model_dump(),
        default=default,
        reference=clip.reference,
        architecture=clip.architecture,
        precision=clip.precision,
        decoding=clip.decoding,
        device=str(clip.device),
        parameters=clip.parameters,
        size_bytes=clip.size_bytes,
        packed=clip.packed,
        embedding_dimensions=clip.embed_dim,
        image_size=clip.image_size,
        context_length=clip.context_length,
        probabilities="softmax" if clip.logit_bias is None else "sigmoid",
        logit_scale=clip.logit_scale,
        quick_gelu=clip.quick_gelu,
    )
