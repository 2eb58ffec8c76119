"""POST /v1/embeddings and GET /v1/models: OpenAI's protocol, over what POST /embed does.

Errors need no translation: this API's own have OpenAI's shape.
"""

import asyncio
import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.bodies import reads
from app.errors import (
    DimensionsNotOffered,
    Forbidden,
    InvalidRequest,
    KeyLimitReached,
    TokenIds,
    Unauthorized,
    UnknownModel,
)
from app.openapi import describe_errors, describe_json
from app.routes.inference import ERRORS, Infer, PredictorDep, json_answer
from app.schemas.common import MAX_URL_CHARS, ImageInput, UrlImage
from app.schemas.openai import (
    EmbeddingItem,
    EmbeddingsRequest,
    EmbeddingsResponse,
    ImagePart,
    Item,
    JinaImage,
    OpenAIModel,
    OpenAIModels,
    TextPart,
    Usage,
)
from app.serving.engine import Engine
from app.serving.predictor import written
from app.serving.served_models import ModelHandle

router = APIRouter(prefix="/v1", tags=["OpenAI's protocol"])

_DATA_URI = re.compile("data:image/", re.IGNORECASE)
_URL = re.compile("https?://", re.IGNORECASE)


@router.post(
    "/embeddings",
    response_model=EmbeddingsResponse,
    responses=describe_errors(*ERRORS, TokenIds, DimensionsNotOffered),
    openapi_extra=describe_json(EmbeddingsRequest),
)
async def openai_embeddings(
    caller: Infer,
    body: Annotated[EmbeddingsRequest, Depends(reads(EmbeddingsRequest, form=False))],
    predictor: PredictorDep,
) -> Response:
    """Encode texts and images as vectors, as OpenAI's API does."""
    images, texts = _sorted(body.input)
    try:
        found = await predictor.features(
            caller, body.model, list(images.values()), list(texts.values()), dimensions=body.dimensions
        )
    except InvalidRequest as error:
        places = {"images": list(images), "texts": list(texts)}.get(error.param or "")
        if places is not None:
            error.param, error.index = "input", None if error.index is None else places[error.index]
        raise
    items = [
        EmbeddingItem(index=index, embedding=embedding)
        for places, vectors in ((images, found.features.images), (texts, found.features.texts))
        for index, embedding in zip(places, written(vectors, body.encoding_format), strict=True)
    ]
    clip = found.model.clip
    tokens = len(images) * clip.patches
    if texts:
        tokens += sum(await asyncio.to_thread(clip.tokenizer.count, list(texts.values())))
    return json_answer(
        EmbeddingsResponse(
            data=sorted(items, key=lambda item: item.index),
            model=body.model,
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )


@router.get("/models", responses=describe_errors(Unauthorized, Forbidden, KeyLimitReached))
async def openai_models(request: Request, caller: Infer) -> OpenAIModels:
    """List the names that requests can use, as OpenAI's API does."""
    engine: Engine = request.app.state.engine
    return OpenAIModels(data=[_described(model) for model in engine.models])


@router.get(
    "/models/{model:path}", responses=describe_errors(Unauthorized, Forbidden, UnknownModel, KeyLimitReached)
)
async def openai_model(request: Request, caller: Infer, model: str) -> OpenAIModel:
    """Return one of the names that requests can use, as OpenAI's API does."""
    engine: Engine = request.app.state.engine
    return _described(engine.models.resolve(model))


def _described(model: ModelHandle) -> OpenAIModel:
    return OpenAIModel(id=model.name, created=int(model.since))


def _sorted(items: list[Item]) -> tuple[dict[int, ImageInput], dict[int, str]]:
    """The images and the texts of a list, by their places in it. Raises TokenIds."""
    images: dict[int, ImageInput] = {}
    texts: dict[int, str] = {}
    for index, item in enumerate(items):
        match item:
            case ImagePart():
                images[index] = _image(item.image_url.url, index)
            case JinaImage():
                images[index] = _image(item.image, index)
            case TextPart():
                texts[index] = item.text
            case str() if _DATA_URI.match(item):
                images[index] = item
            case str():
                texts[index] = item
            case _:
                raise TokenIds(
                    "The input has token ids, of which each model has its own; send the text itself. With LangChain, "
                    "set check_embedding_ctx_length=False.",
                    param="input",
                    index=index if isinstance(item, list) else None,
                )
    return images, texts


def _image(address: str, index: int) -> ImageInput:
    if not _URL.match(address):
        return address
    if len(address) > MAX_URL_CHARS:
        raise InvalidRequest(
            f"The URL has {len(address)} characters; at most {MAX_URL_CHARS} are allowed. Send the image itself.",
            param="input",
            index=index,
        )
    return UrlImage(url=address)
