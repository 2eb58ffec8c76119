"""GET /health, /ready and /metrics, also by HEAD."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from sds_clip.app.backend import Backend
from sds_clip.app.edge.auth import public, requires
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.errors import Unauthorized, Unavailable
from sds_clip.app.routes.shared import EngineDep, of_app
from sds_clip.app.schemas.models import Health, Ready
from sds_clip.app.serving.status import StatusBoard

router = APIRouter(tags=["status"])


async def scrapes(request: Request) -> None:
    """A dependency that admits anybody, or only keys if the metrics have an address of their own."""
    if request.app.state.metrics_need_a_key:
        await requires("infer", "train", "admin")(request)


scrapes.declared_access = ()  # type: ignore[attr-defined]


@router.head("/health", dependencies=[Depends(public)], include_in_schema=False)
@router.get("/health", dependencies=[Depends(public)], responses=describe_errors(Unavailable))
async def health(engine: EngineDep) -> Health:
    """Return 200 while the process takes batches of requests."""
    if not engine.alive:
        raise Unavailable("The engine has stopped; restart the server process.")
    return Health()


@router.head("/ready", dependencies=[Depends(public)], include_in_schema=False)
@router.get("/ready", dependencies=[Depends(public)], responses=describe_errors(Unavailable))
async def ready(engine: EngineDep, board: Annotated[StatusBoard, of_app("status")]) -> Ready:
    """Return 200 while the process can answer requests with the right version.

    This is the promoted version or, without a database, the model of the settings. If no request was answered
    recently, a forward pass tests the model.
    """
    await engine.check_ready()
    return Ready(aliases=board.aliases.source)


@router.head("/metrics", dependencies=[Depends(scrapes)], include_in_schema=False)
@router.get(
    "/metrics",
    dependencies=[Depends(scrapes)],
    response_class=Response,
    responses=describe_errors(Unauthorized),
)
async def metrics(request: Request) -> Response:
    """Return the metrics in the text format of Prometheus.

    This needs a key only if the operator has given the metrics an address of their own.
    """
    backend: Backend | None = request.app.state.backend
    if backend is not None:
        await backend.gauges.refresh()
    return Response(request.app.state.metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
