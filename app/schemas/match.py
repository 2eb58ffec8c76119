"""POST /match."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import (
    MODEL,
    PIXEL,
    Body,
    Images,
    ItemError,
    ModelInfo,
    ModelName,
    OnError,
    Texts,
    example,
)


class MatchRequest(Body):
    """Images and texts; every text is scored against every image."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"images": [PIXEL], "texts": ["a red circle", "a blue square"]}]}
    )

    images: Annotated[Images, Field(min_length=1)]
    texts: Annotated[Texts, Field(min_length=1)]
    model: ModelName = None
    on_error: OnError = "fail"


class ImageMatch(BaseModel):
    """One image against every text."""

    index: int = Field(description="The image's place in the request.")
    scores: list[float] = Field(description="Cosine similarity to each text.")
    logits: list[float] = Field(description="The scores times the checkpoint's logit scale, plus its bias.")
    probabilities: list[float] = Field(
        description="Softmax of the logits over the texts; for SigLIP-style models a sigmoid of each."
    )
    best: int = Field(description="The text with the highest score.")


class MatchResponse(BaseModel):
    """Both directions: per image over the texts, and per text over the images."""

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
                }
            ],
            "text_probabilities": [[1.0], [1.0]],
        }
    )

    model: ModelInfo
    results: list[ImageMatch | ItemError]
    text_probabilities: list[list[float]] = Field(
        description="Per text, over the images that were answered, in their order: softmax, or sigmoids."
    )
