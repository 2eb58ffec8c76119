"""POST /classify."""

from typing import Annotated, get_args

from pydantic import BaseModel, Field, ValidationInfo, field_validator

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
)
from sds_clip.models.choices import LabelSet, TemplateSet


class ClassifyBody(Body):
    """The images to classify, and the labels to choose from."""

    images: Annotated[Images, Field(min_length=1)]
    labels: Annotated[
        Annotated[Texts, Field(min_length=1)] | LabelSet,
        Field(description="A list of labels, or the name of a label set. The only set is `imagenet`."),
    ]
    templates: Annotated[
        TemplateSet | Annotated[Texts, Field(min_length=1)],
        Field(
            description="The prompt templates: `simple` (7 prompts per label), `openai` (80 prompts per label), "
            "or a list of your own, with {} in place of the label."
        ),
    ] = "simple"
    top_k: Annotated[
        int, Field(ge=1, le=1000, description="The number of labels to return for each image.")
    ] = 5
    on_error: OnError = "fail"

    @field_validator("labels", "templates", mode="before")
    @classmethod
    def _is_list_or_set(cls, given: object, info: ValidationInfo) -> object:
        """Refuse a single string that names no set; the union's own error would name one of both choices."""
        sets = get_args(LabelSet if info.field_name == "labels" else TemplateSet)
        if isinstance(given, str) and given not in sets:
            raise ValueError(f"Give a list of {info.field_name}, or the name of a set: {' or '.join(sets)}.")
        return given


class ClassifyRequest(ClassifyBody):
    """The images to classify, and the labels to choose from."""

    model_config = example({"images": [PIXEL], "labels": ["circle", "square"], "top_k": 1})

    model: ModelName = None


class ClassifyComparisonRequest(ClassifyBody):
    """The images to classify, the labels to choose from, and the models that shall do it."""

    model_config = example(
        {"images": [PIXEL], "labels": ["circle", "square"], "top_k": 1, "models": ["default"]}
    )

    models: ModelNames


class Prediction(BaseModel):
    """A label, and how well it fits the image."""

    label: str
    index: int = Field(
        description="The position of the label in the request or in the named set, counted from 0."
    )
    score: float = Field(description="The cosine similarity between the image and the label's class weight.")
    probability: float = Field(
        description="The softmax over all labels. For SigLIP-style models, it is a sigmoid."
    )


class ImageClasses(BaseModel):
    """The best labels of one image."""

    index: int = Field(description="The position of the image in the request, counted from 0.")
    predictions: list[Prediction] = Field(
        description="The labels, sorted by probability, most probable first."
    )


class ClassifyResponse(BaseModel):
    """The best labels of each image."""

    model_config = example(
        {
            "model": MODEL,
            "results": [
                {
                    "index": 0,
                    "predictions": [{"label": "circle", "index": 0, "score": 0.31, "probability": 0.97}],
                }
            ],
        }
    )

    model: ModelInfo
    results: list[ImageClasses | ItemError]


class ClassifyComparison(BaseModel):
    """The answer of each of several models, in the order of their names in the request."""

    answers: list[ClassifyResponse | ModelError]
