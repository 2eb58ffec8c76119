"""POST /v1/embeddings and GET /v1/models: OpenAI's protocol, over what POST /embed does.

Errors need no translation: this API's own have OpenAI's shape.
"""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from sds_clip.app.bodies import reads
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.errors import (
    AmbiguousName,
    DimensionsNotOffered,
    NoImageUri,
    TokenIds,
    Unavailable,
    UnknownModel,
)
from sds_clip.app.routes.inference import ERRORS, Infer, PredictorDep, json_answer
from sds_clip.app.routes.mixed import Mixed
from sds_clip.app.routes.shared import KEY, EngineDep
from sds_clip.app.schemas.openai import (
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
from sds_clip.app.serving.predictor import written
from sds_clip.app.serving.served_models import ModelHandle

router = APIRouter(prefix="/v1", tags=["OpenAI's protocol"])

_IMAGE_URI = re.compile("data:image/", re.IGNORECASE)
# A whole data URI: it has a media type or is base64, and no spaces. Other texts may begin with "data:" too.
_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+(;[^,;\s]+)*|[^,\s]*;base64),\S*", re.IGNORECASE)


@router.post(
    "/embeddings",
    response_model=EmbeddingsResponse,
    responses=describe_errors(*ERRORS, TokenIds, NoImageUri, DimensionsNotOffered),
)
async def openai_embeddings(
    caller: Infer,
    body: Annotated[EmbeddingsRequest, Depends(reads(EmbeddingsRequest, form=False))],
    predictor: PredictorDep,
) -> Response:
    """Encode texts and images as vectors, as OpenAI's API does."""
    items = _sorted(body.input)
    found = await items.embed(predictor, caller, body.model, dimensions=body.dimensions)
    written_images = written(found.features.images, body.encoding_format)
    written_texts = written(found.features.texts, body.encoding_format)
    clip = found.model.clip
    tokens = len(items.images) * clip.patches + sum((await items.tokens(clip)).values())
    return json_answer(
        EmbeddingsResponse(
            data=[
                EmbeddingItem(index=index, embedding=embedding)
                for index, embedding in enumerate(items.in_order(written_images, written_texts))
            ],
            model=body.model,
            usage=Usage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )


@router.get("/models", responses=describe_errors(*KEY))
async def openai_models(caller: Infer, engine: EngineDep) -> OpenAIModels:
    """List the names that requests can use, as OpenAI's API does."""
    return OpenAIModels(data=[_described(model) for model in engine.models])


@router.get("/models/{model:path}", responses=describe_errors(*KEY, UnknownModel, AmbiguousName, Unavailable))
async def openai_model(caller: Infer, predictor: PredictorDep, model: str) -> OpenAIModel:
    """Return one of the names that requests can use, or a version, as OpenAI's API does."""
    return _described(await predictor.model(caller, model))


def _described(model: ModelHandle) -> OpenAIModel:
    return OpenAIModel(id=model.name, created=int(model.since))


def _sorted(items: list[Item]) -> Mixed:
    """The images and the texts of a list. Raises TokenIds or NoImageUri."""
    mixed = Mixed("input")
    for index, item in enumerate(items):
        match item:
            case ImagePart():
                mixed.add_image(index, item.image_url.url)
            case JinaImage():
                mixed.add_image(index, item.image)
            case TextPart():
                mixed.texts[index] = item.text
            case str() if _IMAGE_URI.match(item):
                mixed.images[index] = item
            case str() if _DATA_URI.fullmatch(item):
                raise NoImageUri(
                    "The data URI is not that of an image. Send an image as data:image/...;base64,... To embed the "
                    'characters themselves, send {"type": "text", "text": "data:..."}.',
                    param="input",
                    index=index,
                )
            case str():
                mixed.texts[index] = item
            case _:
                raise TokenIds(
                    "The input has token ids, of which each model has its own; send the text itself. With LangChain, "
                    "set check_embedding_ctx_length=False.",
                    param="input",
                    index=index if isinstance(item, list) else None,
                )
    return mixed
