"""GET /models, /health, /ready and /metrics."""

from fastapi import APIRouter, Depends, Request, Response

from app.auth import public, requires
from app.errors import Forbidden, Unauthorized, Unavailable
from app.openapi import describe_errors
from app.schemas.models import Health, ModelList, ServedModel
from app.serving.engine import Engine

router = APIRouter(tags=["status"])


@router.get(
    "/models",
    dependencies=[Depends(requires("infer"))],
    responses=describe_errors(Unauthorized, Forbidden),
)
async def models(request: Request) -> ModelList:
    """List what is served: architecture, precision, size, version and generation."""
    served_models = _engine(request).models
    default = served_models.resolve(None)
    return ModelList(
        models=[ServedModel.describe(served, default=served is default) for served in served_models]
    )


@router.get("/health", dependencies=[Depends(public)], responses=describe_errors(Unavailable))
async def health(request: Request) -> Health:
    """Whether the process works: 200 while batches are being taken."""
    if not _engine(request).alive:
        raise Unavailable("The engine has stopped; restart the process.")
    return Health()


@router.get("/ready", dependencies=[Depends(public)], responses=describe_errors(Unavailable))
async def ready(request: Request) -> Health:
    """Whether to send requests here: 200 only while a forward pass really answers."""
    await _engine(request).check_ready()
    return Health()


@router.get("/metrics", dependencies=[Depends(public)], response_class=Response)
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus's text format."""
    return Response(request.app.state.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine
