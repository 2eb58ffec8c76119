"""Real clients of OpenAI's and Cohere's protocols, each against a running service: `make test-clients`."""

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.clients.conversations import CLIENTS, TEXTS
from tests.clients.environments import python_with

pytestmark = pytest.mark.clients


@pytest.fixture(scope="session")
def python() -> Path:
    return python_with("clients.txt")


@pytest.mark.parametrize("client", CLIENTS)
def test_client_gets_what_embed_answers(client: str, python: Path, service: tuple[str, str]) -> None:
    url, key = service
    script = Path(__file__).parent / "conversations.py"
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it asks another host
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, script, client, url, key], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])

    picture = base64.b64encode((script.parent / "picture.png").read_bytes()).decode()
    texts, image = (
        np.array([result["embedding"] for result in _embed(url, key, **body)])
        for body in ({"texts": TEXTS}, {"images": [picture]})
    )
    expected = {"vectors": texts, "floats": texts, "query": texts[0], "images": image}
    assert "vectors" in said
    for name in said.keys() & expected.keys():
        found = np.array(said[name])
        np.testing.assert_allclose(found, np.broadcast_to(expected[name], found.shape), atol=1e-6)
    if client == "openai":
        assert said["models"] == [said["model"]] == ["demo"]
        assert said["refused"] == ["unknown_model", "dimensions_not_offered"]
        assert said["usage"] > len(TEXTS)
    if client == "cohere":
        assert said["refused"] == [
            [404, "unknown_model", True],
            [400, "dimensions_not_offered", True],
            [422, "image_format", True],
        ]
        assert said["usage"] > len(TEXTS)
        _check_types(said["types"], np.concatenate([texts, image]))
    print(f"| {client} {said['version']} | passes |")


def _check_types(found: dict[str, Any], expected: NDArray[np.float64]) -> None:
    """Decode each type as its users do, and compare it with /embed's vectors."""
    packed = [np.frombuffer(base64.b64decode(row), dtype="<f4") for row in found["base64"]]
    np.testing.assert_allclose(packed, expected, atol=1e-6)
    bits = np.unpackbits(np.array(found["ubinary"], dtype=np.uint8), axis=1)
    np.testing.assert_array_equal(bits, expected > 0)
    np.testing.assert_array_equal(np.array(found["binary"]) + 128, found["ubinary"])
    np.testing.assert_array_equal(np.array(found["uint8"]) - 128, found["int8"])
    codes = np.array(found["int8"], dtype=np.float64)
    np.testing.assert_allclose(codes / np.linalg.norm(codes, axis=1, keepdims=True), expected, atol=0.005)


def _embed(url: str, key: str, **body: Any) -> list[dict[str, Any]]:
    answer = httpx.post(f"{url}/embed", json=body, headers={"Authorization": f"Bearer {key}"})
    results: list[dict[str, Any]] = answer.raise_for_status().json()["results"]
    return results
