"""POST /v2/embed: Cohere's protocol, over what POST /embed does.

Errors below /v2/ have Cohere's shape: app/edge/responses.py.
"""

from typing import Annotated

import numpy as np
import torch
from fastapi import APIRouter, Depends, Request, Response
from jaxtyping import Float32

from sds_clip.app.bodies import reads
from sds_clip.app.edge.openapi import describe_errors
from sds_clip.app.errors import DimensionsNotOffered, TextTooLong
from sds_clip.app.routes.inference import ERRORS, Infer, PredictorDep, json_answer
from sds_clip.app.routes.mixed import Mixed
from sds_clip.app.routes.shared import of_app
from sds_clip.app.schemas.cohere import (
    BilledUnits,
    CohereEmbedRequest,
    CohereEmbedResponse,
    CohereError,
    EmbeddingsByType,
    EmbeddingType,
    Meta,
)
from sds_clip.app.schemas.openai import ImagePart
from sds_clip.app.serving.golden import GoldenEmbeddings
from sds_clip.app.serving.predictor import written
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.quantize import range_of, to_binary, to_int8, to_ubinary, to_uint8

router = APIRouter(prefix="/v2", tags=["Cohere's protocol"])


@router.post(
    "/embed",
    response_model=CohereEmbedResponse,
    responses=describe_errors(*ERRORS, DimensionsNotOffered, body=CohereError),
)
async def cohere_embed(
    request: Request,
    caller: Infer,
    body: Annotated[CohereEmbedRequest, Depends(reads(CohereEmbedRequest, form=False))],
    predictor: PredictorDep,
    golden: Annotated[GoldenEmbeddings, of_app("golden")],
) -> Response:
    """Encode texts and images as vectors of numbers, bytes or bits, as Cohere's API does."""
    items = _items(body)
    try:
        found = await items.embed(predictor, caller, body.model, dimensions=body.output_dimension)
    except DimensionsNotOffered as error:
        error.param = "output_dimension"
        raise
    clip = found.model.clip
    billed = await _billed(items, clip, may_cut=body.truncate == "END")
    vectors = np.stack(items.in_order(found.features.images.numpy(), found.features.texts.numpy()))
    value_range = None
    if {"int8", "uint8"} & set(body.embedding_types):
        value_range = range_of(await golden.of(found.model), body.output_dimension)
    return json_answer(
        CohereEmbedResponse(
            id=request.state.request_id,
            embeddings=EmbeddingsByType.model_validate(
                {kind: _typed(vectors, kind, value_range) for kind in dict.fromkeys(body.embedding_types)}
            ),
            texts=body.texts or None,
            meta=Meta(billed_units=billed),
        )
    )


def _items(body: CohereEmbedRequest) -> Mixed:
    if body.texts:
        return Mixed("texts", texts=dict(enumerate(body.texts)))
    items = Mixed("images" if body.images else "inputs")
    for index, address in enumerate(body.images):
        items.add_image(index, address)
    for index, given in enumerate(body.inputs):
        (part,) = given.content
        if isinstance(part, ImagePart):
            items.add_image(index, part.image_url.url)
        else:
            items.texts[index] = part.text
    return items


async def _billed(items: Mixed, clip: Clip, *, may_cut: bool) -> BilledUnits:
    """Raises TextTooLong for a text that was cut although it must not be."""
    most = clip.context_length
    tokens = await items.tokens(clip, at_most=most + 1)
    for index, count in tokens.items():
        if count > most and not may_cut:
            raise TextTooLong(
                f"The text has more than the {most} tokens that the model reads. Shorten it, or set truncate to END, "
                "because this server cuts only the end.",
                param=items.param,
                index=index,
            )
    return BilledUnits(
        input_tokens=sum(min(count, most) for count in tokens.values()),
        images=len(items.images),
        image_tokens=len(items.images) * clip.patches,
    )


def _typed(
    vectors: Float32[np.ndarray, "n d"], kind: EmbeddingType, value_range: float | None
) -> list[list[float]] | list[list[int]] | list[str]:
    match kind:
        case "float" | "base64":
            return written(torch.from_numpy(vectors), kind)
        case "binary":
            codes: np.ndarray = to_binary(vectors)
        case "ubinary":
            codes = to_ubinary(vectors)
        case _:
            assert value_range is not None
            codes = (to_int8 if kind == "int8" else to_uint8)(vectors, value_range)
    found: list[list[int]] = codes.tolist()
    return found
