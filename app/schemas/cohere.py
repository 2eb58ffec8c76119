"""POST /v2/embed, as Cohere has it."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from sds_clip.app.schemas.common import (
    PIXEL,
    Body,
    Dimensions,
    ErrorDetail,
    InlineImage,
    Texts,
    example,
    one_of,
)
from sds_clip.app.schemas.openai import ImagePart, TextPart

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


def _kind(part: object) -> str | None:
    match part:
        case {"type": "text"} | TextPart():
            return "TextPart"
        case {"type": "image_url"} | ImagePart():
            return "ImagePart"
    return None


Part = Annotated[
    Annotated[TextPart, Tag("TextPart")] | Annotated[ImagePart, Tag("ImagePart")],
    Discriminator(
        _kind,
        custom_error_type="part_kind",
        custom_error_message='A part must be {"type": "text", "text": ...} or '
        '{"type": "image_url", "image_url": {"url": ...}}',
    ),
]


class CohereInput(Body):
    """One input: a list with one text or one image."""

    content: Annotated[list[Part], Field(min_length=1, fail_fast=True, json_schema_extra={"maxItems": 1})]

    @model_validator(mode="after")
    def _one_part(self) -> Self:
        if len(self.content) > 1:
            raise ValueError(
                "This model embeds a text or an image, not several together; send each as an input"
            )
        return self


class CohereEmbedRequest(Body):
    """What to embed: `texts`, `images` or `inputs`. Give exactly one of the three."""

    model_config = one_of(
        "texts",
        "images",
        "inputs",
        examples=[
            {"model": "default", "input_type": "search_query", "texts": ["a red circle"]},
            {
                "model": "default",
                "input_type": "image",
                "images": [PIXEL],
                "embedding_types": ["int8", "ubinary"],
            },
        ],
    )

    model: Annotated[
        str, Field(max_length=256, description="A name from GET /models, or a version's id or its beginning.")
    ]
    input_type: Annotated[
        Literal["search_document", "search_query", "classification", "clustering", "image"],
        Field(
            description="What the vectors are for, as Cohere's clients must say. It changes no vector. `image` is for "
            "images only."
        ),
    ]
    texts: Annotated[Texts, Field(default_factory=list)]
    images: Annotated[list[InlineImage], Field(default_factory=list, max_length=4096, fail_fast=True)]
    inputs: Annotated[
        list[CohereInput],
        Field(
            default_factory=list,
            max_length=65_536,
            fail_fast=True,
            description="Texts and images, mixed.",
        ),
    ]
    embedding_types: Annotated[
        list[EmbeddingType],
        Field(
            min_length=1,
            max_length=64,
            fail_fast=True,
            default_factory=lambda: ["float"],
            json_schema_extra={"default": ["float"]},
            description="`float`: numbers. `base64`: little-endian float32 values in base64. `int8`: codes from -127 "
            "to 127. `uint8`: these plus 128. `ubinary`: the signs as bits, eight to a byte. `binary`: these bytes "
            "minus 128.",
        ),
    ]
    output_dimension: Dimensions = None
    truncate: Annotated[
        Literal["NONE", "START", "END"],
        Field(
            description="What happens to a text with more tokens than the model reads. `END`: its end is cut off. "
            "Otherwise the request fails."
        ),
    ] = "END"
    priority: Annotated[int | None, Field(description="It is ignored.")] = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if sum(map(bool, (self.texts, self.images, self.inputs))) != 1:
            raise ValueError("Give one of texts, images and inputs, and at least one item")
        parts = [part for given in self.inputs for part in given.content]
        if self.input_type == "image" and (self.texts or any(isinstance(part, TextPart) for part in parts)):
            raise ValueError(
                "The input_type image is for images; for texts, choose search_query or another one"
            )
        return self


class EmbeddingsByType(BaseModel):
    """The vectors in each type that was asked for, in the order of the request."""

    model_config = ConfigDict(serialize_by_alias=True)

    floats: Annotated[list[list[float]] | None, Field(alias="float")] = None
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = None


class BilledUnits(BaseModel):
    """What was read. Nothing is billed."""

    input_tokens: int = Field(description="The tokens of the texts, with those at their start and end.")
    images: int
    image_tokens: int = Field(description="The patches into which the images were cut.")


class ApiVersion(BaseModel):
    """The version of Cohere's protocol."""

    version: Literal["2"] = "2"


class Meta(BaseModel):
    """What Cohere tells about a request."""

    api_version: ApiVersion = ApiVersion()
    billed_units: BilledUnits


class CohereEmbedResponse(BaseModel):
    """The vectors by type. Types that were not asked for are left out."""

    model_config = example(
        {
            "response_type": "embeddings_by_type",
            "id": "0f6e6d9c6c6f4a0e8a9e2f3f1c1b7d55",
            "embeddings": {"float": [[0.6, 0.8]], "int8": [[95, 127]]},
            "texts": ["a red circle"],
            "meta": {
                "api_version": {"version": "2"},
                "billed_units": {"input_tokens": 5, "images": 0, "image_tokens": 0},
            },
        }
    )

    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"
    id: str = Field(description="The request's id, as in the header X-Request-Id.")
    embeddings: EmbeddingsByType
    texts: Annotated[list[str] | None, Field(description="The field `texts` of the request.")] = None
    meta: Meta


class CohereError(ErrorDetail):
    """The body of every error response below /v2/: Cohere's `id` and `message`, and this API's other fields."""

    id: str
