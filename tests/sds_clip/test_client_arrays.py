"""Answers as NumPy arrays."""

import base64
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from sds_clip import Client, embeddings, scores
from tests.app.serverside import RunningServer

TEXTS = ["a red circle", "a blue square", "a star"]
ERROR: dict[str, Any] = {"index": 1, "error": {"code": "not_an_image"}}


def test_vectors_are_rows_of_float32_in_both_encodings() -> None:
    rows = np.array([[0.25, 0.5], [1, 2]], dtype=np.float32)
    written = [row.tolist() for row in rows], [base64.b64encode(row.tobytes()).decode() for row in rows]
    for first, second in written:
        results = [{"index": 0, "embedding": first}, ERROR, {"index": 2, "embedding": second}]
        found = embeddings({"dimensions": 2, "results": results})
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, [[0.25, 0.5], [np.nan, np.nan], [1, 2]])
    assert embeddings({"dimensions": 2, "results": []}).shape == (0, 2)


@pytest.mark.parametrize("field", ["scores", "logits", "probabilities"])
def test_scores_have_a_row_for_each_image(field: Any) -> None:
    result = {"index": 0, "scores": [0.5, 0.25], "logits": [5, 2.5], "probabilities": [0.75, 0.25]}
    found = scores({"results": [ERROR, result]}, field)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, [[np.nan, np.nan], result[field]])
    assert scores({"results": [ERROR]}, field).shape == (1, 0)


def test_the_scores_of_match_are_the_products_of_the_vectors(
    service: RunningServer, photos: list[Any]
) -> None:
    with Client(service.url) as client:
        matched = scores(client.match(photos[:2], TEXTS))
        images = embeddings(client.embed(photos[:2], encoding_format="base64"))
        texts = embeddings(client.embed(texts=TEXTS))
    assert matched.shape == (2, 3)
    np.testing.assert_allclose(matched, images @ texts.T, atol=1e-5)


def test_the_client_does_without_numpy() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None; from sds_clip import Client, embeddings; Client('http://x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
