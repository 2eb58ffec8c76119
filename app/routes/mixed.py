"""What the routes of other protocols share: lists in which images and texts may stand side by side."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from sds_clip.app.errors import InvalidRequest
from sds_clip.app.keys import Caller
from sds_clip.app.schemas.common import MAX_URL_CHARS, ImageInput, UrlImage
from sds_clip.app.serving.predictor import Embedded, Predictor
from sds_clip.models.clip.model import Clip

Item = TypeVar("Item")

FEW_CHARS = 128
"""Texts of this length need no thread. One word of so many letters takes 2 ms, and longer words the square of that."""
_URL = re.compile("https?://", re.IGNORECASE)


@dataclass(frozen=True)
class Mixed:
    """The images and the texts of a request's list, which is its field `param`, by their places in it."""

    param: str
    images: dict[int, ImageInput] = field(default_factory=dict)
    texts: dict[int, str] = field(default_factory=dict)

    def add_image(self, index: int, address: str) -> None:
        """Add an image that is base64, a data URI or a URL. Raises InvalidRequest for a URL that is too long."""
        if _URL.match(address) and len(address) > MAX_URL_CHARS:
            raise InvalidRequest(
                f"The URL has {len(address)} characters; at most {MAX_URL_CHARS} are allowed. Send the image itself.",
                param=self.param,
                index=index,
            )
        self.images[index] = UrlImage(url=address) if _URL.match(address) else address

    async def embed(
        self, predictor: Predictor, caller: Caller, model: str, *, dimensions: int | None
    ) -> Embedded:
        """Do what /embed does. Errors name the place in the list."""
        try:
            return await predictor.features(
                caller, model, list(self.images.values()), list(self.texts.values()), dimensions=dimensions
            )
        except InvalidRequest as error:
            places = {"images": list(self.images), "texts": list(self.texts)}.get(error.param or "")
            if places is not None:
                error.param = self.param
                error.index = None if error.index is None else places[error.index]
            raise

    def in_order(self, images: Iterable[Item], texts: Iterable[Item]) -> list[Item]:
        """What belongs to the images and to the texts, in the order of the request's list."""
        found = dict(zip([*self.images, *self.texts], [*images, *texts], strict=True))
        return [found[index] for index in sorted(found)]

    async def tokens(self, clip: Clip, *, at_most: int | None = None) -> dict[int, int]:
        """The number of tokens of each text, as `Tokenizer.count` counts them."""
        texts = list(self.texts.values())
        if sum(map(len, texts)) <= FEW_CHARS:
            counts = clip.tokenizer.count(texts, at_most=at_most)
        else:
            counts = await asyncio.to_thread(clip.tokenizer.count, texts, at_most=at_most)
        return dict(zip(self.texts, counts, strict=True))
