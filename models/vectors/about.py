"""What a file of embeddings says about the model that made them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from sds_clip.models.choices import DECODINGS
from sds_clip.models.errors import VectorsError

Dtype = Literal["float32", "float16"]

FORMAT = 1
MAX_DIMENSIONS = 65_536


@dataclass(frozen=True)
class About:
    """The model and the way that embeddings were made. All rows of a file have the same."""

    version: str
    """`Clip.version`: a hash over the weights and everything else that changes a result."""
    dimensions: int
    dtype: Dtype
    images: str
    """The folder that paths are relative to, itself relative to the file's folder."""
    reference: str | None = None
    """What the model was loaded by; None if a service computed the embeddings."""
    precision: str | None = None
    image_key: str | None = None
    """The column of a table in which the images are, if it was named."""
    decoding: int = DECODINGS["full"]
    format: int = FORMAT

    def as_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of_json(cls, text: str | bytes, file: Path) -> "About":
        """Read what `as_json` wrote. Raises VectorsError, naming the file."""
        try:
            content: dict[str, Any] = json.loads(text)
            about = cls(**content)
            if not about._is_sound():
                raise ValueError("a field has a wrong value")
        except (ValueError, TypeError, RecursionError) as error:
            raise VectorsError(
                f"{file} does not say which model made its rows, as `sds-clip embed` writes it. Embed the images again."
            ) from error
        if about.format != FORMAT:
            raise VectorsError(
                f"{file} has the format {about.format}, but this release reads {FORMAT}; update it."
            )
        return about

    def _is_sound(self) -> bool:
        texts = (self.reference, self.precision, self.image_key)
        return (
            isinstance(self.dimensions, int)
            and 0 < self.dimensions <= MAX_DIMENSIONS
            and self.dtype in get_args(Dtype)
            and all(isinstance(text, str) for text in (self.version, self.images))
            and all(text is None or isinstance(text, str) for text in texts)
        )

    def difference(self, other: "About") -> str | None:
        """Say in what the rows of two files differ, so that they do not belong into one; None if they do."""
        names: Mapping[str, str] = {
            "version": "the model's version",
            "precision": "the precision",
            "dtype": "the format of the numbers",
            "decoding": "the way that images are decoded",
        }
        for field, name in names.items():
            ours, theirs = getattr(self, field), getattr(other, field)
            if ours != theirs:
                return f"{name} is {_shown(theirs)} there and {_shown(ours)} here"
        return None


def _shown(value: object) -> str:
    decodings = {number: name for name, number in DECODINGS.items()}
    return decodings.get(value, str(value)) if isinstance(value, int) else str(value)[:12]
