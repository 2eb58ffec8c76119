"""POST /v1/embeddings and GET /v1/models, against /embed and against what OpenAI's clients expect."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.testclient import TestClient

from sds_clip.app.schemas.openai import EmbeddingsRequest
from sds_clip.app.settings import Settings
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.app.conftest import base64_of, embed, png, serving, with_dimensions
from tests.app.test_bad_input import URI
from tests.checkpoints import save_resnet

IMAGE = base64_of(png(seed=1))
TEXT = "a red circle"


def embeddings(client: TestClient, inputs: Any, **options: Any) -> dict[str, Any]:
    answer = client.post("/v1/embeddings", json={"model": "small", "input": inputs, **options})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def vectors(body: dict[str, Any]) -> NDArray[np.float32]:
    assert [item["index"] for item in body["data"]] == list(range(len(body["data"])))
    return np.array([item["embedding"] for item in body["data"]], dtype=np.float32)


def test_texts_get_the_vectors_of_embed(client: TestClient) -> None:
    body = embeddings(client, [TEXT, "?", "ein Kreis ∘ 圆"])
    np.testing.assert_array_equal(vectors(body), embed(client, texts=[TEXT, "?", "ein Kreis ∘ 圆"]))
    assert body["object"] == "list"
    assert body["model"] == "small"
    assert [item["object"] for item in body["data"]] == ["embedding"] * 3


def test_as_many_texts_as_openai_takes_are_answered_while_other_requests_wait(client: TestClient) -> None:
    texts = [f"text {number}" for number in range(2048)]
    with client.app.state.engine._batcher.admit(1024):  # type: ignore[attr-defined]
        found = vectors(embeddings(client, texts))
    assert len(found) == len(texts)
    # A batch of other texts rounds otherwise.
    np.testing.assert_allclose(found[-2:], embed(client, texts=texts[-2:]), atol=1e-6)
    answer = client.post("/v1/embeddings", json={"model": "small", "input": [*texts, "one more"]})
    assert answer.status_code == 422
    assert "has 2049 texts; at most 2048" in answer.json()["error"]["message"]


def test_one_text_without_a_list(client: TestClient) -> None:
    np.testing.assert_array_equal(vectors(embeddings(client, TEXT)), embed(client, texts=[TEXT]))


@pytest.mark.parametrize(
    "shape",
    [
        URI,
        {"type": "image_url", "image_url": {"url": URI}},
        {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
        {"image": IMAGE},
        {"image": URI},
    ],
    ids=["data URI", "content part", "content part with detail", "Jina's base64", "Jina's data URI"],
)
def test_an_image_in_the_shapes_that_clients_send(client: TestClient, shape: Any) -> None:
    expected = embed(client, images=[IMAGE])
    np.testing.assert_array_equal(vectors(embeddings(client, shape)), expected)
    np.testing.assert_array_equal(vectors(embeddings(client, [shape])), expected)


def test_images_and_texts_in_one_list_keep_their_places(client: TestClient) -> None:
    other = base64_of(png(seed=2))
    body = embeddings(client, [{"text": "a"}, URI, {"type": "text", "text": "b"}, {"image": other}, "c"])
    texts, images = embed(client, texts=["a", "b", "c"]), embed(client, images=[IMAGE, other])
    expected = np.stack([texts[0], images[0], texts[1], images[1], texts[2]])
    np.testing.assert_allclose(vectors(body), expected, atol=1e-6)


def test_base64_is_little_endian_float32(client: TestClient) -> None:
    packed = embeddings(client, [TEXT], encoding_format="base64")["data"][0]["embedding"]
    vector = np.frombuffer(base64.b64decode(packed), dtype="<f4")
    np.testing.assert_array_equal(vector, embed(client, texts=[TEXT])[0])


def test_usage_counts_tokens_and_patches(client: TestClient, small_clip: Clip) -> None:
    tokenizer = open_clip.SimpleTokenizer()
    tokens = len(tokenizer.encode(TEXT)) + 2  # the start and the end
    patches = 16  # 32 pixels in patches of 8
    assert small_clip.patches == patches
    usage = embeddings(client, [TEXT, URI, URI])["usage"]
    assert usage == {"prompt_tokens": tokens + 2 * patches, "total_tokens": tokens + 2 * patches}


def test_usage_of_a_long_text_ends_at_the_context(client: TestClient) -> None:
    assert embeddings(client, "circle " * 200)["usage"]["prompt_tokens"] == 77


def test_tokens_and_patches_of_another_tokenizer_and_tower(siglip_folder: Path) -> None:
    clip = load_clip(f"local-dir:{siglip_folder}", device="cpu", precision="float32")
    # With </s>; the context is 12.
    assert clip.tokenizer.count(["a red cube", "", "cat " * 100]) == [4, 1, 12]
    assert clip.tokenizer.count([]) == []
    assert clip.patches == 100  # 160 pixels in patches of 16


def test_patches_of_a_resnet(tmp_path: Path) -> None:
    clip = load_clip(f"local-dir:{save_resnet(tmp_path / 'resnet')}", device="cpu", precision="float32")
    assert clip.patches + 1 == len(clip.network.visual.attnpool.positional_embedding)  # type: ignore[union-attr, arg-type]


def test_the_user_field_is_ignored(client: TestClient) -> None:
    assert vectors(embeddings(client, TEXT, user="u-1")).shape == (1, 32)


# Shorter vectors


def test_vectors_are_cut_where_the_model_says_so(shortened: TestClient) -> None:
    whole = embed(shortened, texts=[TEXT, "b"])
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(vectors(embeddings(shortened, [TEXT, "b"], dimensions=8)), expected, atol=1e-6)
    np.testing.assert_allclose(vectors(embeddings(shortened, [TEXT, "b"], dimensions=32)), whole, atol=1e-6)


def test_other_lengths_are_refused(client: TestClient, shortened: TestClient) -> None:
    for service, offered in ((client, "Ask for no other length"), (shortened, "8, 16")):
        answer = service.post("/v1/embeddings", json={"model": "small", "input": TEXT, "dimensions": 12})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("dimensions_not_offered", "dimensions")
        assert offered in error["message"]


@pytest.mark.parametrize("stated", [[0], [64], ["8"], 8, [True]])
def test_wrong_lengths_in_a_configuration_are_refused(tiny_folder: Path, tmp_path: Path, stated: Any) -> None:
    folder = with_dimensions(tiny_folder, tmp_path, stated)
    with pytest.raises(ValueError, match="matryoshka_dimensions"):
        load_clip(f"local-dir:{folder}", device="cpu", precision="float32")


# Bad input


def test_of_many_wrong_items_one_is_reported() -> None:
    """Each error takes time and memory, and a body can hold millions."""
    with pytest.raises(ValidationError) as raised:
        EmbeddingsRequest.model_validate_json(json.dumps({"model": "m", "input": [["", ""]]}), strict=True)
    assert raised.value.error_count() == 1


@pytest.mark.parametrize("ids", [[1, 2, 3], [[1, 2], [3]], [True]])
def test_token_ids_are_refused_with_advice(client: TestClient, ids: Any) -> None:
    answer = client.post("/v1/embeddings", json={"model": "small", "input": ids})
    error = answer.json()["error"]
    if ids == [True]:
        assert answer.status_code == 422
        return
    assert (answer.status_code, error["code"], error["param"]) == (400, "token_ids", "input")
    assert "check_embedding_ctx_length=False" in error["message"]


@pytest.mark.parametrize(
    "uri",
    [
        "data:text/plain;base64,SGVsbG8=",
        "data:text/plain,hello",
        "DATA:application/pdf;name=a.pdf;base64,JVBERi0=",
        "data:;base64,SGVsbG8=",
        "data:None;base64,SGVsbG8=",
    ],
)
def test_a_data_uri_of_something_else_is_no_text(client: TestClient, uri: str) -> None:
    answer = client.post("/v1/embeddings", json={"model": "small", "input": ["a", uri]})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "no_image_uri")
    assert (error["param"], error["index"]) == ("input", 1)
    assert '{"type": "text", "text": "data:..."}' in error["message"]
    as_text = embeddings(client, {"type": "text", "text": uri})
    np.testing.assert_array_equal(vectors(as_text), embed(client, texts=[uri]))


@pytest.mark.parametrize("text", ["data: 5, 7", "data:1,2,3", "data:text/plain, as in a sentence", "data:"])
def test_a_text_that_only_begins_like_a_data_uri_is_a_text(client: TestClient, text: str) -> None:
    np.testing.assert_array_equal(vectors(embeddings(client, text)), embed(client, texts=[text]))


def test_a_form_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/embeddings", files=[("images", ("x.png", png()))], data={"model": "small"})
    assert answer.status_code == 415


# Models


def test_models_are_listed(client: TestClient) -> None:
    body = client.get("/v1/models").json()
    assert body["object"] == "list"
    (only,) = body["data"]
    assert (only["id"], only["object"], only["owned_by"]) == ("small", "model", "sds-clip")
    assert client.get("/v1/models/small").json() == only
    answer = client.get("/v1/models/gpt-4")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_model")


def test_a_name_with_a_slash_is_found(settings: Settings, small_clip: Clip) -> None:
    with serving(settings, small_clip, "ViT/tiny") as client:
        assert client.get("/v1/models/ViT/tiny").json()["id"] == "ViT/tiny"


# Web pages

ORIGIN = "https://app.example.org"


@pytest.fixture
def paged(settings: Settings, small_clip: Clip) -> Iterator[TestClient]:
    """A service that lets the pages of one origin in."""
    own = settings.model_copy(update={"cors_origins": [ORIGIN]})
    with serving(own, small_clip) as client:
        yield client


def test_pages_of_a_named_origin_are_let_in(paged: TestClient) -> None:
    asked = {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"}
    wanted = {"Method": "POST", "Headers": "authorization,content-type"}
    preflight = asked | {f"Access-Control-Request-{name}": value for name, value in wanted.items()}
    answers = [
        paged.options("/v1/embeddings", headers=preflight),
        paged.post("/v1/embeddings", json={"model": "small", "input": "a"}, headers=asked),
        paged.post("/v1/embeddings", json={"model": "other", "input": "a"}, headers=asked),
    ]
    assert [answer.status_code for answer in answers] == [200, 200, 404]
    assert {answer.headers["Access-Control-Allow-Origin"] for answer in answers} == {ORIGIN}


def test_pages_of_other_origins_are_not(paged: TestClient) -> None:
    answer = paged.post(
        "/v1/embeddings", json={"model": "small", "input": "a"}, headers={"Origin": "https://b.org"}
    )
    assert answer.status_code == 403
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_all_pages_need_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name the origins"):
        Settings(cors_origins=["*"])
    assert Settings(cors_origins=["*"], keys_file=tmp_path / "keys.json").cors_origins == ["*"]
