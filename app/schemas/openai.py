"""POST /v1/embeddings and GET /v1/models, as OpenAI has them, with images in the shapes that clients send."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Discriminator, Field, Tag

from sds_clip.app.schemas.common import PIXEL, Body, Dimensions, Text, example


class ImageUrl(Body):
    """The address of an image: a data URI or, if the operator allows it, a URL."""

    url: str
    detail: Annotated[str | None, Field(description="It is ignored.")] = None


class ImagePart(Body):
    """An image as a content part of OpenAI's chat."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(Body):
    """A text, as a content part of OpenAI's chat or as Jina has it."""

    type: Literal["text"] = "text"
    text: Text


class JinaImage(Body):
    """An image as Jina has it: base64, a data URI or, if the operator allows it, a URL."""

    image: str


def _kind(item: object) -> str | None:
    """The tag of an item's kind. It is the schema's name, which no field of a caller can have."""
    match item:
        case str():
            return "String"
        case bool():
            return None
        case int():
            return "Token"
        case [] | [int(), *_]:
            return "Tokens"
        case {"image_url": _} | ImagePart():
            return "ImagePart"
        case {"image": _} | JinaImage():
            return "JinaImage"
        case {"text": _} | TextPart():
            return "TextPart"
    return None


Item = Annotated[
    Annotated[Text, Tag("String")]
    | Annotated[ImagePart, Tag("ImagePart")]
    | Annotated[JinaImage, Tag("JinaImage")]
    | Annotated[TextPart, Tag("TextPart")]
    | Annotated[int, Tag("Token")]
    | Annotated[list[int], Field(fail_fast=True), Tag("Tokens")],
    Discriminator(
        _kind,
        custom_error_type="item_kind",
        custom_error_message='An item must be a string, {"type": "text", "text": ...}, '
        '{"type": "image_url", "image_url": {"url": ...}} or {"image": ...}',
    ),
]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


class EmbeddingsRequest(Body):
    """What to embed: one text or image, or a list of them, which may mix both."""

    model_config = example(
        {"model": "default", "input": "a red circle"},
        {"model": "default", "input": [PIXEL, "a red circle"], "encoding_format": "base64"},
    )

    input: Annotated[
        list[Item],
        Field(
            min_length=1,
            max_length=65_536,
            fail_fast=True,
            description="A text, an image or a list of both. A string that begins with `data:image/` is an image. "
            "Data URIs of anything else are refused, and so are token ids.",
        ),
        BeforeValidator(_as_list, json_schema_input_type=str | list[Item]),
    ]
    model: Annotated[
        str,
        Field(max_length=256, description="A name from GET /v1/models, or a version's id or its beginning."),
    ]
    encoding_format: Annotated[
        Literal["float", "base64"],
        Field(description="`float`: a list of numbers. `base64`: little-endian float32 values in base64."),
    ] = "float"
    dimensions: Dimensions = None
    user: Annotated[str | None, Field(description="It is ignored.")] = None


class EmbeddingItem(BaseModel):
    """The vector of one item, scaled to length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """What was read: the tokens of the texts, and the patches of the images."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """The vectors, in the order of the input."""

    model_config = example(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}],
            "model": "default",
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        }
    )

    object: Literal["list"] = "list"
    data: list[EmbeddingItem]
    model: str
    usage: Usage


class OpenAIModel(BaseModel):
    """A name that requests can use."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Since when this process has served its weights, in seconds since 1970.")
    owned_by: Literal["sds-clip"] = "sds-clip"


class OpenAIModels(BaseModel):
    """All names that requests can use."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]
