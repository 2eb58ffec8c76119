"""POST /embed."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

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


class EmbedRequest(Body):
    """Images or texts."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"texts": ["a red circle"]}, {"images": [PIXEL]}]}
    )

    images: Annotated[Images, Field(default_factory=list)]
    texts: Annotated[Texts, Field(default_factory=list)]
    normalize: Annotated[bool, Field(description="Scale each vector to length 1.")] = True
    encoding_format: Annotated[
        Literal["float", "base64"],
        Field(description="`base64`: little-endian float32, a third of the size."),
    ] = "float"
    model: ModelName = None
    on_error: OnError = "fail"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.images) == bool(self.texts):
            raise ValueError("give images or texts: one of them, and not empty")
        return self


class Embedding(BaseModel):
    """One vector."""

    index: int = Field(description="The item's place in the request.")
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
