"""GET /models, /models/status, /health, /ready and /metrics; the last three also by HEAD."""

from fastapi import APIRouter, Depends, Request, Response

from app.auth import public, requires
from app.backend import Backend
from app.errors import Forbidden, InvalidRequest, Unauthorized, Unavailable, UnknownRecord
from app.openapi import describe_errors
from app.routes.shared import After, Limit
from app.schemas.models import Health, Ready, ServedModel, ServingStatus
from app.schemas.versions import AliasInfo, ModelsAndVersions, VersionInfo
from app.serving.engine import Engine
from app.serving.served_models import ModelHandle
from app.serving.status import StatusBoard
from app.store.alias_names import DEFAULT

router = APIRouter(tags=["status"])


@router.get(
    "/models",
    dependencies=[Depends(requires("infer"))],
    responses=describe_errors(Unauthorized, Forbidden, UnknownRecord, InvalidRequest),
)
async def models(request: Request, after: After = None, limit: Limit = 20) -> ModelsAndVersions:
    """List the models that this process serves, and the registered aliases and versions."""
    served = _engine(request).models
    default = served.current(DEFAULT)
    listed = ModelsAndVersions(models=[_described(model, default=model is default) for model in served])
    backend: Backend | None = request.app.state.backend
    if backend is None:
        return listed
    try:
        page, aliases = await backend.run(backend.versions.list, after=after, limit=limit)
    except Unavailable:  # what is served is known even without the registry
        return listed.model_copy(update={"registry": "away"})
    return listed.model_copy(
        update={
            "registry": "read",
            "aliases": [AliasInfo.model_validate(alias) for alias in aliases],
            "versions": [VersionInfo.of(version, aliases) for version in page.items],
            "has_more": page.has_more,
        }
    )


@router.get(
    "/models/status",
    dependencies=[Depends(requires("infer"))],
    responses=describe_errors(Unauthorized, Forbidden),
)
async def models_status(request: Request) -> ServingStatus:
    """Return what each serving process serves, since when, and what it could not load."""
    board: StatusBoard = request.app.state.status
    return ServingStatus(processes=await board.all())


@router.head("/health", dependencies=[Depends(public)], include_in_schema=False)
@router.get("/health", dependencies=[Depends(public)], responses=describe_errors(Unavailable))
async def health(request: Request) -> Health:
    """Return 200 while the process takes batches of requests."""
    if not _engine(request).alive:
        raise Unavailable("The engine has stopped; restart the server process.")
    return Health()


@router.head("/ready", dependencies=[Depends(public)], include_in_schema=False)
@router.get("/ready", dependencies=[Depends(public)], responses=describe_errors(Unavailable))
async def ready(request: Request) -> Ready:
    """Return 200 while the process can answer requests with the promoted version.

    If no request was answered recently, a forward pass tests this.
    """
    await _engine(request).check_ready()
    board: StatusBoard = request.app.state.status
    return Ready(aliases=board.aliases.source)


@router.head("/metrics", dependencies=[Depends(public)], include_in_schema=False)
@router.get("/metrics", dependencies=[Depends(public)], response_class=Response)
async def metrics(request: Request) -> Response:
    """Return the metrics in the text format of Prometheus."""
    return Response(request.app.state.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _described(model: ModelHandle, *, default: bool) -> ServedModel:
    clip = model.clip
    return ServedModel(
        **model.info.model_dump(),
        default=default,
        reference=clip.reference,
        architecture=clip.architecture,
        precision=clip.precision,
        device=str(clip.device),
        parameters=clip.parameters,
        size_bytes=clip.size_bytes,
        embedding_dimensions=clip.embed_dim,
        image_size=clip.image_size,
        context_length=clip.context_length,
        probabilities="softmax" if clip.logit_bias is None else "sigmoid",
        logit_scale=clip.logit_scale,
        quick_gelu=clip.quick_gelu,
    )
