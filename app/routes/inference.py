"""POST /match, /classify and /embed."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from sds_clip.app.bodies import reads
from sds_clip.app.edge.auth import requires
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.edge.query import refuse_unknown_parameters
from sds_clip.app.errors import (
    AmbiguousName,
    ClassesBuilding,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    Overloaded,
    Unavailable,
    UnknownModel,
)
from sds_clip.app.keys import Caller
from sds_clip.app.routes.shared import BODY, KEY, of_app
from sds_clip.app.schemas.classify import (
    ClassifyComparison,
    ClassifyComparisonRequest,
    ClassifyRequest,
    ClassifyResponse,
)
from sds_clip.app.schemas.embed import EmbedRequest, EmbedResponse
from sds_clip.app.schemas.match import MatchComparison, MatchComparisonRequest, MatchRequest, MatchResponse
from sds_clip.app.serving.predictor import Predictor

ERRORS = (
    *BODY,
    Overloaded,
    *KEY,
    UnknownModel,
    AmbiguousName,
    InvalidRequest,
    InternalError,
    Unavailable,
    DeadlineExceeded,
)

router = APIRouter(tags=["inference"])

Infer = Annotated[Caller, Depends(requires("infer"))]
PredictorDep = Annotated[Predictor, of_app("predictor")]


@router.post("/match", response_model=MatchResponse, responses=describe_errors(*ERRORS))
async def match(
    caller: Infer, body: Annotated[MatchRequest, Depends(reads(MatchRequest))], predictor: PredictorDep
) -> Response:
    """Score every text against every image."""
    return json_answer(await predictor.match(caller, body))


@router.post(
    "/classify", response_model=ClassifyResponse, responses=describe_errors(*ERRORS, ClassesBuilding)
)
async def classify(
    caller: Infer, body: Annotated[ClassifyRequest, Depends(reads(ClassifyRequest))], predictor: PredictorDep
) -> Response:
    """Find the labels that fit each image best. Each label is averaged over prompt templates."""
    return json_answer(await predictor.classify(caller, body))


@router.post("/embed", response_model=EmbedResponse, responses=describe_errors(*ERRORS))
async def embed(
    caller: Infer, body: Annotated[EmbedRequest, Depends(reads(EmbedRequest))], predictor: PredictorDep
) -> Response:
    """Encode images or texts as vectors."""
    return json_answer(await predictor.embed(caller, body))


@router.post("/match/compare", response_model=MatchComparison, responses=describe_errors(*ERRORS))
async def compare_matches(
    caller: Infer,
    body: Annotated[MatchComparisonRequest, Depends(reads(MatchComparisonRequest))],
    predictor: PredictorDep,
) -> Response:
    """Score every text against every image with several models.

    The images are decoded once, and models over the same base answer in one batch. A model that cannot answer has its
    error in the place of its answer, and `retry_after_s` if it may answer later. The comparison waits as one request
    with the items of all its models. If these are more than `SDS_CLIP_MAX_QUEUE`, it is accepted only while nothing
    else waits.
    """
    return json_answer(await predictor.compare_matches(caller, body))


@router.post(
    "/classify/compare",
    response_model=ClassifyComparison,
    responses=describe_errors(*ERRORS, ClassesBuilding),
)
async def compare_classes(
    caller: Infer,
    body: Annotated[ClassifyComparisonRequest, Depends(reads(ClassifyComparisonRequest))],
    predictor: PredictorDep,
) -> Response:
    """Find the labels that fit each image best, with several models.

    The images are decoded once, and models over the same base answer in one batch. A model that cannot answer has its
    error in the place of its answer, and `retry_after_s` if it may answer later. The comparison waits as one request
    with the items of all its models. If these are more than `SDS_CLIP_MAX_QUEUE`, it is accepted only while nothing
    else waits.
    """
    return json_answer(await predictor.compare_classes(caller, body))


def json_answer(answer: BaseModel) -> Response:
    """The answer as a response, without what is null."""
    # pydantic serialises the answer here, because FastAPI would validate it a second time.
    return Response(answer.model_dump_json(exclude_none=True), media_type="application/json")


class Shortcut(BaseRoute):
    """Answers a route's POST before FastAPI's routing comes to it.

    FastAPI's own way takes a fifth of what a small request computes in the event loop. Here the dependencies, which
    take the request alone, are called in their order.
    """

    def __init__(self, route: APIRoute) -> None:
        self.path = self.path_format = route.path
        self.endpoint, self.dependant = route.endpoint, route.dependant
        self._needed: list[tuple[Any, Any]] = [(each.name, each.call) for each in self.dependant.dependencies]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["path"] == self.path and scope["method"] == "POST":
            return Match.FULL, {"route": self}
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        await refuse_unknown_parameters(request)
        response = await self.endpoint(**{name: await call(request) for name, call in self._needed})
        await response(scope, receive, send)
