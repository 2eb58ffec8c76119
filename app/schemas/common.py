"""What the bodies of several endpoints share."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict
from pydantic.config import JsonDict
from pydantic.json_schema import SkipJsonSchema

from sds_clip.app.settings import MAX_TEXTS
from sds_clip.app.store.names import ID_PREFIXES, NAME_PATTERN, is_id

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"
    "AAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


MAX_URL_CHARS = 2048
MODEL: JsonDict = {"name": "demo", "version": "a655f28d1f4e", "generation": 1}


def example(*values: JsonDict) -> ConfigDict:
    """A pydantic configuration with examples for the OpenAPI description."""
    return ConfigDict(json_schema_extra={"examples": [*values]})


class Answer(BaseModel):
    """What an answer says of a record, whose attributes have the names of its fields."""

    model_config = ConfigDict(from_attributes=True)


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(extra="forbid")


def one_of(*fields: str, examples: list[JsonDict]) -> ConfigDict:
    """A configuration for a body that has exactly one of these lists, which is not empty. It also has examples.

    The service takes an empty list as one that is left out. Generators of clients make no class of a schema that has
    `oneOf` itself, so it stands within `allOf`.
    """
    rule = f"Give exactly one of {', '.join(fields[:-1])} and {fields[-1]}."

    def add(schema: dict[str, Any]) -> None:
        schema.update(allOf=[{"oneOf": [{"required": [field]} for field in fields]}], examples=examples)
        for field in fields:
            given = schema["properties"][field]
            given.update(minItems=1, description=f"{given.get('description', '')} {rule}".strip())

    return ConfigDict(json_schema_extra=add)


class UrlImage(Body):
    """An image that the server fetches from a URL. The operator must have allowed this."""

    url: Annotated[str, Field(max_length=MAX_URL_CHARS, examples=["https://example.org/cat.jpg"])]


InlineImage = Annotated[
    str,
    Strict(),  # else it would take a file's bytes for its text
    Field(
        description="A JPEG, PNG, WebP or GIF file, as a data URI (`data:image/...;base64,...`) or as plain "
        "base64."
    ),
]
# A file uploaded in a multipart body arrives in the same field as bytes.
# From left to right: else a string is built for each alternative, which takes 30 ms for 31 MiB.
ImageInput = Annotated[
    InlineImage | UrlImage | SkipJsonSchema[bytes], Field(title="ImageInput", union_mode="left_to_right")
]
# These ceilings are far above what the settings allow. With `fail_fast`, only the first of a million wrong
# items is reported, and no error is built for the others.
Images = Annotated[list[ImageInput], Field(max_length=4096, fail_fast=True)]
# The description alone says that a text is not empty. app/request_limits.py checks it, and tells its place in all
# protocols.
Text = Annotated[str, Field(json_schema_extra={"minLength": 1})]
Texts = Annotated[
    list[Text], Field(max_length=65_536, fail_fast=True, json_schema_extra={"maxItems": MAX_TEXTS})
]

ModelName = Annotated[
    str | None,
    Field(
        max_length=256,
        description="A name from GET /models, or a version's id. Instead of an id, its beginning will do: at least 8 "
        "digits that no other version begins with. Without a name, the default model answers.",
    ),
]
MAX_MODELS = 16
ModelNames = Annotated[
    list[Annotated[str, Field(max_length=256)]],
    Field(
        min_length=1,
        max_length=MAX_MODELS,
        description="Up to 16 names from GET /models, or ids of versions or their beginnings. The answers come in "
        "their order.",
        examples=[["default"]],
    ),
]
Dimensions = Annotated[
    int | None,
    Field(
        ge=1,
        description="The length to which vectors are cut, and then scaled to length 1 again. Only models whose "
        "configuration lists `matryoshka_dimensions` can do this.",
    ),
]
OnError = Annotated[
    Literal["fail", "skip"],
    Field(
        description="What happens if an image cannot be read. `fail`: the whole request fails. `skip`: this "
        "image gets an error, and the other images get answers."
    ),
]


def _is_no_id(name: str) -> str:
    if is_id(name):
        raise ValueError(f"A name cannot begin like an id, with {' or '.join(ID_PREFIXES)}")
    return name


IdOrName = Annotated[str, Field(pattern=NAME_PATTERN)]
Name = Annotated[IdOrName, AfterValidator(_is_no_id)]
"""A name that stands for an id."""


class ModelInfo(BaseModel):
    """The model that gave the answer."""

    name: str
    version: str = Field(
        description="The SHA-256 of the weights and of everything else that affects the scores."
    )
    generation: int = Field(
        description="A number that grows by one each time the weights behind the name are replaced."
    )


def without_default(schema: dict[str, Any]) -> None:
    """An answer leaves out what is null. A default would describe the field as one that is always there."""
    schema.pop("default", None)


class ErrorPlace(BaseModel):
    """What is wrong, and where."""

    message: str = Field(description="What went wrong, for people. The wording may change.")
    param: str | None = Field(
        None,
        description="The field of the request that is wrong, such as `images`. Of a field within an item, it is the "
        "whole place, such as `inputs[3].content[0].image_url.url`.",
        json_schema_extra=without_default,
    )
    index: int | None = Field(
        None,
        description="The position of the wrong item, if `param` is a list.",
        json_schema_extra=without_default,
    )


class ErrorDetail(ErrorPlace):
    """What went wrong, and what to do about it."""

    type: str = Field(description="The kind of error, which follows from the HTTP status.")
    code: str = Field(description="The code of the error. Programs can rely on it.")
    errors: list[ErrorPlace] | None = Field(
        None,
        description="If several fields of the request are wrong, these errors and the first one: at most 20.",
        json_schema_extra=without_default,
    )


class ErrorBody(BaseModel):
    """The body of every error response."""

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


class ModelError(BaseModel):
    """A model that could not answer, among others that did."""

    name: str = Field(description="The name in the request.")
    error: ErrorDetail
    retry_after_s: int | None = Field(
        None,
        description="The number of seconds after which this model may answer, if it can be expected to.",
        json_schema_extra=without_default,
    )


class ItemError(BaseModel):
    """The error of one image. It occurs only with `on_error: skip`."""

    index: int
    error: ErrorDetail
