"""What the bodies of several endpoints share."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


MODEL: JsonDict = {"name": "demo", "version": "57760bd3d3b6", "generation": 1}


def example(value: JsonDict) -> ConfigDict:
    """A pydantic configuration with an example for the OpenAPI description."""
    return ConfigDict(json_schema_extra={"examples": [value]})


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


class UrlImage(Body):
    """An image to be fetched, where the operator allows it."""

    url: Annotated[str, Field(max_length=2048, examples=["https://example.org/cat.jpg"])]


InlineImage = Annotated[
    str,
    Field(description="A data URI (`data:image/...;base64,...`) or bare base64 of JPEG, PNG, WebP or GIF."),
]
# A file uploaded in a multipart body arrives in the same field as bytes.
ImageInput = InlineImage | UrlImage | SkipJsonSchema[bytes]
# These ceilings are far above what the settings allow. With `fail_fast`, only the first of a million wrong
# items is reported, and no error is built for the others.
Images = Annotated[list[ImageInput], Field(max_length=4096, fail_fast=True)]
Texts = Annotated[list[str], Field(max_length=65_536, fail_fast=True)]

ModelName = Annotated[
    str | None, Field(max_length=256, description="A name from GET /models; the default model when left out.")
]
OnError = Annotated[
    Literal["fail", "skip"],
    Field(description="`fail`: a bad image fails the request. `skip`: it gets an error, the others answers."),
]


class ModelInfo(BaseModel):
    """The weights that gave an answer."""

    name: str
    version: str = Field(description="SHA-256 of the weights and of all else that changes a score.")
    generation: int = Field(description="Grows by one with each swap of the name's weights.")


class ErrorDetail(BaseModel):
    """What went wrong, and what to do."""

    type: str
    code: str
    message: str
    param: str | None = None
    index: int | None = None


class ErrorBody(BaseModel):
    """The one error body."""

    model_config = example(
        {
            "error": {
                "type": "invalid_request_error",
                "code": "image_truncated",
                "message": "The image is cut short; send the whole file.",
                "param": "images",
                "index": 0,
            }
        }
    )

    error: ErrorDetail


class ItemError(BaseModel):
    """An image that could not be answered; only with `on_error: skip`."""

    index: int
    error: ErrorDetail
