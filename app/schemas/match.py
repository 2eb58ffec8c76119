"""POST /match."""

from typing import Annotated

from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema

from sds_clip.app.schemas.common import (
    MODEL,
    PIXEL,
    Body,
    Images,
    ItemError,
    ModelError,
    ModelInfo,
    ModelName,
    ModelNames,
    OnError,
    Texts,
    example,
    without_default,
)


class MatchBody(Body):
    """The images and the texts to match. Every text is scored against every image."""

    images: Annotated[Images, Field(min_length=1)]
    texts: Annotated[Texts, Field(min_length=1)]
    on_error: OnError = "fail"


class MatchRequest(MatchBody):
    """The images and the texts to match. Every text is scored against every image."""

    model_config = example({"images": [PIXEL], "texts": ["a red circle", "a blue square"]})

    model: ModelName = None


class MatchComparisonRequest(MatchBody):
    """The images and the texts to match, and the models that shall do it."""

    model_config = example(
        {"images": [PIXEL], "texts": ["a red circle", "a blue square"], "models": ["default"]}
    )

    models: ModelNames


class ImageMatch(BaseModel):
    """The scores of one image with every text."""

    index: int = Field(description="The position of the image in the request, counted from 0.")
    scores: list[float] = Field(description="The cosine similarity between the image and each text.")
    logits: list[float] = Field(
        description="The scores, multiplied by the checkpoint's logit scale, plus its logit bias."
    )
    probabilities: list[float] = Field(
        description="The softmax of the logits over the texts. For SigLIP-style models, it is the sigmoid of "
        "each logit."
    )
    best: int = Field(description="The index of the text with the highest score.")
    best_text: str = Field(description="The text with the highest score.")


class MatchResponse(BaseModel):
    """The scores of each image over the texts, and the probabilities of each text over the images."""

    model_config = example(
        {
            "model": MODEL,
            "results": [
                {
                    "index": 0,
                    "scores": [0.31, 0.22],
                    "logits": [31.0, 22.0],
                    "probabilities": [0.9999, 0.0001],
                    "best": 0,
                    "best_text": "a red circle",
                }
            ],
        }
    )

    model: ModelInfo
    results: list[ImageMatch | ItemError]
    text_probabilities: list[list[float]] | SkipJsonSchema[None] = Field(
        None,
        description="For each text, its probabilities over the images: a softmax, or sigmoids for SigLIP-style "
        "models. Images with an error are left out, and the others keep their order. The field is there only if the "
        "request has several images.",
        json_schema_extra=without_default,
    )


class MatchComparison(BaseModel):
    """The answer of each of several models, in the order of their names in the request."""

    answers: list[MatchResponse | ModelError]
