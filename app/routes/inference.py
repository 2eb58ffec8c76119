"""POST /match, /classify and /embed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from app.auth import requires
from app.bodies import reads
from app.errors import (
    BodyTimeout,
    BodyTooLarge,
    ClassesBuilding,
    DeadlineExceeded,
    Forbidden,
    InternalError,
    InvalidRequest,
    MalformedBody,
    Overloaded,
    Unauthorized,
    Unavailable,
    UnknownModel,
    UnsupportedMediaType,
)
from app.openapi import describe_body, describe_errors
from app.schemas.classify import ClassifyRequest, ClassifyResponse
from app.schemas.embed import EmbedRequest, EmbedResponse
from app.schemas.match import MatchRequest, MatchResponse
from app.serving.inference import Inference

ERRORS = (
    MalformedBody,
    Unauthorized,
    Forbidden,
    UnknownModel,
    BodyTimeout,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    Overloaded,
    InternalError,
    Unavailable,
    DeadlineExceeded,
)

router = APIRouter(tags=["inference"], dependencies=[Depends(requires("infer"))])


async def inference(request: Request) -> Inference:
    """The process's inference. Async, or FastAPI would fetch it in a thread."""
    found: Inference = request.app.state.inference
    return found


InferenceDep = Annotated[Inference, Depends(inference)]


@router.post(
    "/match",
    response_model=MatchResponse,
    responses=describe_errors(*ERRORS),
    openapi_extra=describe_body(MatchRequest),
)
async def match(
    body: Annotated[MatchRequest, Depends(reads(MatchRequest))], inference: InferenceDep
) -> Response:
    """Score every text against every image with the model in service."""
    return _json(await inference.match(body))


@router.post(
    "/classify",
    response_model=ClassifyResponse,
    responses=describe_errors(*ERRORS, ClassesBuilding),
    openapi_extra=describe_body(ClassifyRequest),
)
async def classify(
    body: Annotated[ClassifyRequest, Depends(reads(ClassifyRequest))], inference: InferenceDep
) -> Response:
    """Find the labels that fit each image best, each label averaged over prompt templates."""
    return _json(await inference.classify(body))


@router.post(
    "/embed",
    response_model=EmbedResponse,
    responses=describe_errors(*ERRORS),
    openapi_extra=describe_body(EmbedRequest),
)
async def embed(
    body: Annotated[EmbedRequest, Depends(reads(EmbedRequest))], inference: InferenceDep
) -> Response:
    """Encode images or texts as vectors."""
    return _json(await inference.embed(body))


def _json(answer: BaseModel) -> Response:
    # Serialised by pydantic at once: FastAPI would validate the answer a second time.
    return Response(answer.model_dump_json(), media_type="application/json")
