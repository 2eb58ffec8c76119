"""Embeds the images of `sds-clip embed` and the queries of `sds-clip search` through a service."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
import numpy as np

from sds_clip.client import Client, embeddings
from sds_clip.client.errors import InvalidRequest
from sds_clip.client.schemas import EmbedResponse
from sds_clip.models.choices import DECODINGS
from sds_clip.models.findings import Finding
from sds_clip.models.vectors.encoder import Encoder

_REQUESTS = 2
"""Requests for a batch, so that the service decodes the images of one while it computes the other."""


class ServiceEncoder(Encoder):
    """Embeds with one version of a service's model."""

    reference = None
    precision = None

    def __init__(self, client: Client, model: str | None) -> None:
        self._client, self._model = client, model
        answer = client.embed(texts=["a photo"], model=model)
        self.version = answer["model"]["version"]
        self.dimensions = answer["dimensions"]
        # All models of a process are decoded for alike. A service of an earlier release does not say how.
        served = client.models(limit=1)["models"][0]
        self.decoding = DECODINGS[str(served.get("decoding", "full"))]

    def prepare(self, data: bytes) -> bytes:
        return data

    def encode(self, prepared: Sequence[bytes]) -> Sequence[np.ndarray | Finding]:
        """Raises ClientError, or ClickException if the service has changed its model."""
        size = -(-len(prepared) // _REQUESTS)
        pieces = [prepared[start : start + size] for start in range(0, len(prepared), size)]
        with ThreadPoolExecutor(_REQUESTS) as pool:
            return [row for rows in pool.map(self._images, pieces) for row in rows]

    def encode_text(self, text: str) -> np.ndarray:
        row: np.ndarray = embeddings(self._asked(texts=[text]))[0]
        return row

    def encode_query(self, image: bytes) -> np.ndarray:
        """Return the embedding of one image. Raises InvalidRequest if it cannot be read."""
        row: np.ndarray = embeddings(self._asked(images=[image]))[0]
        return row

    def _images(self, images: Sequence[bytes]) -> list[np.ndarray | Finding]:
        try:
            answer = self._asked(images=list(images), on_error="skip")
        except InvalidRequest as error:
            if error.code != "body_too_large":
                raise
            # One of them is larger than the service accepts; the others are not to blame.
            if len(images) == 1:
                return [Finding(error.code, error.message)]
            return [row for image in images for row in self._images([image])]
        return [
            Finding(row["error"]["code"], row["error"]["message"]) if "error" in row else vector
            for row, vector in zip(answer["results"], embeddings(answer), strict=True)
        ]

    def _asked(self, **fields: Any) -> EmbedResponse:
        answer = self._client.embed(model=self._model, encoding_format="base64", **fields)
        if answer["model"]["version"] != self.version:
            raise click.ClickException(
                f"The service changed its model from {self.version[:12]} to {answer['model']['version'][:12]} "
                f"meanwhile. Finished batches are kept. If the service has that version, name it with --model "
                f"{self.version} and run the command again. Otherwise remove the folder that ends with .partial."
            )
        return answer
