"""POST /embed."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from sds_clip.app.schemas.common import (
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
    one_of,
)


class EmbedRequest(Body):
    """The images or the texts to embed. Give one of the two."""

    model_config = one_of("images", "texts", examples=[{"texts": ["a red circle"]}, {"images": [PIXEL]}])

    images: Annotated[Images, Field(default_factory=list)]
    texts: Annotated[Texts, Field(default_factory=list)]
    normalize: Annotated[bool, Field(description="Whether each vector is scaled to length 1.")] = True
    encoding_format: Annotated[
        Literal["float", "base64"],
        Field(
            description="How vectors are written. `float`: a list of numbers. `base64`: little-endian float32 "
            "values in base64, about a third of the size."
        ),
    ] = "float"
    model: ModelName = None
    on_error: OnError = "fail"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.images) == bool(self.texts):
            raise ValueError("Give either images or texts, and at least one item")
        return self


class Embedding(BaseModel):
    """The vector of one image or text."""

    index: int = Field(description="The position of the image or text in the request, counted from 0.")
    embedding: list[float] | str


class EmbedResponse(BaseModel):
    """The vectors, in the order of the request."""

    model_config = example(
        {
            "model": MODEL,
            "dimensions": 2,
            "results": [{"index": 0, "embedding": [0.6, 0.8]}],
        }
    )

    model: ModelInfo
    dimensions: int
    results: list[Embedding | ItemError]
