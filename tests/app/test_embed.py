"""POST /embed."""

import base64

import numpy as np
import torch
from starlette.testclient import TestClient

from sds_clip.models.clip.model import Clip
from tests.app.conftest import base64_of, png


def test_text_vectors_equal_the_models_own(client: TestClient, small_clip: Clip) -> None:
    texts = ["a red circle", "?", "ein Kreis ∘ 圆"]
    body = client.post("/embed", json={"texts": texts}).json()
    expected = small_clip.encode_text(small_clip.tokenizer(texts))
    got = torch.tensor([result["embedding"] for result in body["results"]])
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    assert body["dimensions"] == 32


def test_base64_holds_the_same_float32_numbers(client: TestClient) -> None:
    request = {"images": [base64_of(png(seed=1)), base64_of(png(seed=2))]}
    floats = client.post("/embed", json=request).json()["results"]
    packed = client.post("/embed", json={**request, "encoding_format": "base64"}).json()["results"]
    for plain, encoded in zip(floats, packed, strict=True):
        vector = np.frombuffer(base64.b64decode(encoded["embedding"]), dtype="<f4")
        np.testing.assert_array_equal(vector, np.float32(plain["embedding"]))


def test_unnormalised_vectors_point_the_same_way(client: TestClient) -> None:
    request = {"images": [base64_of(png())]}
    unit = np.array(client.post("/embed", json=request).json()["results"][0]["embedding"])
    raw = np.array(
        client.post("/embed", json={**request, "normalize": False}).json()["results"][0]["embedding"]
    )
    assert abs(np.linalg.norm(unit) - 1) < 1e-6
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit, atol=1e-6)


def test_images_and_texts_together_are_refused(client: TestClient) -> None:
    answer = client.post("/embed", json={"images": [base64_of(png())], "texts": ["a"]})
    assert answer.status_code == 422
    assert "images or texts" in answer.json()["error"]["message"]
    assert client.post("/embed", json={}).status_code == 422
