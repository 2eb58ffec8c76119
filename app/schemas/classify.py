"""POST /classify."""

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
from models.choices import LabelSet, TemplateSet


class ClassifyRequest(Body):
    """Images, and the labels to choose from."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"images": [PIXEL], "labels": ["circle", "square"], "top_k": 1}]}
    )

    images: Annotated[Images, Field(min_length=1)]
    labels: Annotated[
        Annotated[Texts, Field(min_length=1)] | LabelSet,
        Field(description="The labels, or the name of a set: `imagenet`."),
    ]
    templates: Annotated[
        TemplateSet | Annotated[Texts, Field(min_length=1)],
        Field(description="`simple` (7 prompts a label), `openai` (80), or prompts with {} for the label."),
    ] = "simple"
    top_k: Annotated[int, Field(ge=1, le=1000, description="How many labels to answer with.")] = 5
    model: ModelName = None
    on_error: OnError = "fail"


class Prediction(BaseModel):
    """A label and how well it fits."""

    label: str
    index: int = Field(description="The label's place in the request, or in the named set.")
    score: float = Field(description="Cosine similarity to the label's class weight.")
    probability: float = Field(description="Softmax over all labels; for SigLIP-style models a sigmoid.")


class ImageClasses(BaseModel):
    """One image's best labels."""

    index: int = Field(description="The image's place in the request.")
    predictions: list[Prediction] = Field(description="Sorted, the most probable first.")


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
