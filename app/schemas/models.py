"""GET /models, /health and /ready."""

from typing import Literal

from pydantic import BaseModel, Field

from app.schemas.common import ModelInfo
from app.serving.served import Served


class ServedModel(ModelInfo):
    """What a name serves."""

    default: bool = Field(description="Whether requests that name no model get this one.")
    reference: str = Field(description="Where the weights came from.")
    architecture: str
    precision: Literal["float32", "bfloat16", "float16"]
    device: str
    parameters: int
    size_bytes: int = Field(description="The weights in memory.")
    embedding_dimensions: int
    image_size: tuple[int, int]
    context_length: int = Field(description="Longer texts are cut to so many tokens.")
    probabilities: Literal["softmax", "sigmoid"]
    logit_scale: float
    quick_gelu: bool

    @classmethod
    def describe(cls, served: Served, *, default: bool) -> "ServedModel":
        """The model as GET /models lists it."""
        clip = served.clip
        return cls(
            name=served.name,
            version=clip.version,
            generation=served.generation,
            default=default,
            reference=clip.reference,
            architecture=clip.architecture,
            precision=clip.precision,
            device=str(clip.device),
            parameters=clip.parameters,
            size_bytes=clip.size_bytes,
            embedding_dimensions=clip.embed_dim,
            image_size=clip.image_size,
            context_length=clip.context_length,
            probabilities="softmax" if clip.logit_bias is None else "sigmoid",
            logit_scale=clip.logit_scale,
            quick_gelu=clip.quick_gelu,
        )


class ModelList(BaseModel):
    """The models that requests may name."""

    models: list[ServedModel]


class Health(BaseModel):
    """Whether the process does its work."""

    status: Literal["ok"] = "ok"
