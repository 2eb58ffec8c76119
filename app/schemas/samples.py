"""GET /datasets/{id}/samples."""

from typing import Literal

from pydantic import BaseModel, Field

from sds_clip.app.schemas.listing import Listing

MAX_TEXT_CHARS = 2000
MAX_TEXTS = 100
"""Limits on what is listed of a sample or an item: the length of each text, and the number of captions and of tags."""


class SampleInfo(BaseModel):
    """A sample of a data set: an image with its captions, or an item of a benchmark."""

    index: int = Field(description="The place of the sample in the data set. It counts from 0.")
    object: Literal["dataset.sample"] = "dataset.sample"
    id: str = Field(description="The sample's name, or the id of a benchmark's item, as the data give it.")
    captions: list[str] = Field(
        description=f"The first {MAX_TEXTS} captions. Of each, at most {MAX_TEXT_CHARS} characters are shown."
    )
    tags: list[str] = Field(description="The tags of a benchmark's item, such as its class.")
    images: list[str] = Field(description="The paths of the sample's pictures on this server.")


class SampleList(Listing):
    """Samples, in the order of the data set."""

    data: list[SampleInfo]
