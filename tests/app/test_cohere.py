"""POST /v2/embed, against /embed and against what Cohere's clients expect."""

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from sds_clip.app.main import create_app
from sds_clip.app.registry.golden_file import read_golden, write_golden
from sds_clip.app.settings import Settings
from sds_clip.models.checkpoints.delta_file import read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.checkpoints.model_config import CONFIG_FILE
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.quantize import range_of, to_int8
from tests.app.conftest import base64_of, png
from tests.app.serving.swapping import publish_tuned
from tests.app.test_bad_input import ACCEPTED, REFUSED

IMAGE = base64_of(png(seed=1))
URI = f"data:image/png;base64,{IMAGE}"
TEXT = "a red circle"
LONG = "circle " * 200
TEXT_PART = {"type": "text", "text": TEXT}
IMAGE_PART = {"type": "image_url", "image_url": {"url": URI}}


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v2/embed", json={"model": "small", "input_type": "classification", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["id"] == answer.headers["X-Request-Id"]
    return found


def floats(client: TestClient, **body: Any) -> NDArray[np.float32]:
    return np.array(ask(client, **body)["embeddings"]["float"], dtype=np.float32)


def embed(client: TestClient, **body: Any) -> NDArray[np.float32]:
    results = client.post("/embed", json={"model": "small", **body}).json()["results"]
    return np.array([result["embedding"] for result in results], dtype=np.float32)


def test_texts_get_the_vectors_of_embed(client: TestClient) -> None:
    texts = [TEXT, "?", "ein Kreis ∘ 圆"]
    body = ask(client, texts=texts)
    np.testing.assert_array_equal(floats(client, texts=texts), embed(client, texts=texts))
    assert body.keys() == {"response_type", "id", "embeddings", "texts", "meta"}
    assert body["response_type"] == "embeddings_by_type"
    assert body["embeddings"].keys() == {"float"}
    assert body["texts"] == texts
    assert body["meta"]["api_version"] == {"version": "2"}


@pytest.mark.parametrize("address", [IMAGE, URI], ids=["base64", "data URI"])
def test_images_get_the_vectors_of_embed(client: TestClient, address: str) -> None:
    expected = embed(client, images=[IMAGE])
    np.testing.assert_array_equal(floats(client, images=[address], input_type="image"), expected)
    np.testing.assert_array_equal(floats(client, images=[address], input_type="search_document"), expected)
    part = {"type": "image_url", "image_url": {"url": address}}
    np.testing.assert_array_equal(floats(client, inputs=[{"content": [part]}]), expected)


def test_inputs_keep_their_order(client: TestClient) -> None:
    inputs = [{"content": [part]} for part in (TEXT_PART, IMAGE_PART, {"type": "text", "text": "b"})]
    texts, images = embed(client, texts=[TEXT, "b"]), embed(client, images=[IMAGE])
    np.testing.assert_allclose(
        floats(client, inputs=inputs), np.stack([texts[0], images[0], texts[1]]), atol=1e-6
    )


@pytest.mark.parametrize("input_type", ["search_document", "search_query", "classification", "clustering"])
def test_the_input_type_changes_nothing(client: TestClient, input_type: str) -> None:
    np.testing.assert_array_equal(
        floats(client, texts=[TEXT], input_type=input_type), embed(client, texts=[TEXT])
    )


def test_units_are_tokens_images_and_patches(client: TestClient) -> None:
    inputs = [{"content": [part]} for part in (TEXT_PART, IMAGE_PART, IMAGE_PART)]
    units = ask(client, inputs=inputs)["meta"]["billed_units"]
    assert units == {"input_tokens": 5, "images": 2, "image_tokens": 2 * 16}


def test_the_priority_is_ignored(client: TestClient) -> None:
    assert floats(client, texts=[TEXT], priority=3).shape == (1, 32)


# Long texts


def test_long_text_is_cut_at_its_end_or_refused(client: TestClient) -> None:
    for options in ({}, {"truncate": "END"}):
        body = ask(client, texts=["b", LONG], **options)
        assert body["meta"]["billed_units"]["input_tokens"] == 3 + 77
    for truncate in ("NONE", "START"):
        assert floats(client, texts=["circle " * 75], truncate=truncate).shape == (1, 32)
        answer = client.post(
            "/v2/embed",
            json={
                "model": "small",
                "input_type": "clustering",
                "texts": ["b", "circle " * 76],
                "truncate": truncate,
            },
        )
        error = answer.json()
        assert (answer.status_code, error["code"], error["param"], error["index"]) == (
            422, "text_too_long", "texts", 1,
        )  # fmt: skip


def test_long_text_of_another_tokenizer_is_counted(siglip_folder: Path) -> None:
    tokenizer = load_clip(f"local-dir:{siglip_folder}", device="cpu", precision="float32").tokenizer
    assert tokenizer.count(["a red cube", "cat " * 100], at_most=13) == [4, 13]  # the context is 12


# Types


def test_types_are_the_float_vectors_in_fewer_bytes(client: TestClient) -> None:
    kinds = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    inputs = [{"content": [part]} for part in (TEXT_PART, IMAGE_PART)]
    found = ask(client, inputs=inputs, embedding_types=kinds)["embeddings"]
    assert found.keys() == set(kinds)
    vectors = np.array(found["float"], dtype=np.float32)
    packed = np.stack([np.frombuffer(base64.b64decode(row), dtype="<f4") for row in found["base64"]])
    np.testing.assert_array_equal(packed, vectors)
    int8 = np.array(found["int8"])
    cosines = (int8 * vectors).sum(axis=1) / np.linalg.norm(int8, axis=1)
    assert cosines.min() > 0.999
    np.testing.assert_array_equal(np.array(found["uint8"]), int8 + 128)
    bits = np.unpackbits(np.array(found["ubinary"], dtype=np.uint8), axis=1)
    np.testing.assert_array_equal(bits, vectors > 0)
    np.testing.assert_array_equal(np.array(found["binary"]), np.array(found["ubinary"]) - 128)


def test_types_that_were_not_asked_for_are_left_out(client: TestClient) -> None:
    assert ask(client, texts=[TEXT], embedding_types=["ubinary", "ubinary"])["embeddings"].keys() == {
        "ubinary"
    }


def served(settings: Settings, clip: Clip) -> TestClient:
    return TestClient(create_app(settings, {"small": clip}), base_url="http://localhost")


def codes(client: TestClient, model: str = "small", **options: Any) -> NDArray[np.int8]:
    found = ask(client, model=model, texts=[TEXT], embedding_types=["int8"], **options)
    return np.array(found["embeddings"]["int8"], dtype=np.int8)


def test_range_of_an_own_model_is_that_of_the_first_process(settings: Settings, small_clip: Clip) -> None:
    with served(settings, small_clip) as client:
        vectors = embed(client, texts=[TEXT])
        first = codes(client)
    np.testing.assert_array_equal(first, to_int8(vectors, range_of(Golden.of(small_clip))))
    # Another range in the folder stands for a first process that computed in another precision.
    folder = settings.data_dir / "golden" / small_clip.version
    golden = read_golden(folder)
    peaked = golden.text_features.clone().zero_()
    peaked[:, 0] = 1
    write_golden(folder, Golden(golden.seed, golden.image_features, peaked))
    with served(settings, small_clip) as client:
        np.testing.assert_array_equal(codes(client), to_int8(vectors, 1.25))


def test_range_of_a_published_version_comes_from_its_files(
    settings: Settings, small_clip: Clip, tmp_path: Path
) -> None:
    versions = settings.data_dir / "versions"
    version = publish_tuned(versions, small_clip, tmp_path / "delta", seed=0)
    with served(settings, small_clip) as client:
        vectors = embed(client, model=version, texts=[TEXT])
        expected = to_int8(vectors, range_of(read_delta(versions / version).golden))
        np.testing.assert_array_equal(codes(client, model=version), expected)
    assert not (settings.data_dir / "golden").exists()


def test_range_that_cannot_be_kept_refuses_only_the_types_that_need_it(
    settings: Settings, small_clip: Clip
) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "golden").write_text("a file where the folder belongs")
    with served(settings, small_clip) as client:
        body = {"model": "small", "input_type": "clustering", "texts": [TEXT]}
        refused = client.post("/v2/embed", json={**body, "embedding_types": ["int8"]})
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert ask(client, texts=[TEXT], embedding_types=["ubinary"])


@pytest.fixture
def shortened(settings: Settings, tiny_folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    """A service over a model whose configuration says that its vectors can be cut."""
    folder = shutil.copytree(tiny_folder, tmp_path / "matryoshka")
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps({**config, "matryoshka_dimensions": [16, 8]}))
    with served(settings, load_clip(f"local-dir:{folder}", device="cpu", precision="float32")) as client:
        yield client


def test_shorter_vectors_are_quantised_by_a_range_of_their_own(
    shortened: TestClient, small_clip: Clip
) -> None:
    whole = embed(shortened, texts=[TEXT])
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(floats(shortened, texts=[TEXT], output_dimension=8), expected, atol=1e-6)
    difference = codes(shortened, output_dimension=8) - to_int8(expected, range_of(Golden.of(small_clip), 8))
    assert np.abs(difference).max() <= 1  # the last bit of a float may round the other way


def test_other_lengths_are_refused(client: TestClient) -> None:
    body = {"model": "small", "input_type": "clustering", "texts": [TEXT], "output_dimension": 12}
    answer = client.post("/v2/embed", json=body)
    error = answer.json()
    assert (answer.status_code, error["code"], error["param"]) == (
        400, "dimensions_not_offered", "output_dimension",
    )  # fmt: skip


# Bad input


@pytest.mark.parametrize("name", ACCEPTED)
def test_unusual_images_are_answered(client: TestClient, name: str) -> None:
    assert floats(client, images=[base64_of(ACCEPTED[name])]).shape == (1, 32)


@pytest.mark.parametrize("name", REFUSED)
def test_bad_images_are_refused_at_their_place(client: TestClient, name: str) -> None:
    data, code = REFUSED[name]
    bad = {"type": "image_url", "image_url": {"url": base64_of(data)}}
    bodies: dict[str, Any] = {
        "images": [URI, URI, base64_of(data)],
        "inputs": [{"content": [part]} for part in (TEXT_PART, IMAGE_PART, bad)],
    }
    for param, items in bodies.items():
        answer = client.post(
            "/v2/embed", json={"model": "small", "input_type": "search_document", param: items}
        )
        assert answer.status_code == 422
        error = answer.json()
        assert (error["code"], error["param"], error["index"]) == (code, param, 2)
        assert error["message"]
        assert error["id"] == answer.headers["X-Request-Id"]


BODIES: dict[str, tuple[Any, int, str]] = {
    "not JSON": (b"{", 400, "malformed_body"),
    "lone surrogate": (
        b'{"model": "small", "input_type": "clustering", "texts": ["\\ud800"]}',
        400,
        "malformed_body",
    ),
    "nothing": ({}, 422, "invalid_request"),
    "an empty list": ({"texts": []}, 422, "invalid_request"),
    "texts and images": ({"texts": ["a"], "images": [URI]}, 422, "invalid_request"),
    "no model": (b'{"texts": ["a"], "input_type": "clustering"}', 422, "invalid_request"),
    "no input type": (b'{"texts": ["a"], "model": "small"}', 422, "invalid_request"),
    "an unknown input type": ({"texts": ["a"], "input_type": "query"}, 422, "invalid_request"),
    "a text as an image": ({"texts": ["a"], "input_type": "image"}, 422, "invalid_request"),
    "an input of text as an image": (
        {"inputs": [{"content": [TEXT_PART]}], "input_type": "image"},
        422,
        "invalid_request",
    ),
    "a text and an image in one input": (
        {"inputs": [{"content": [TEXT_PART, IMAGE_PART]}]},
        422,
        "invalid_request",
    ),
    "two texts in one input": ({"inputs": [{"content": [TEXT_PART, TEXT_PART]}]}, 422, "invalid_request"),
    "an input of nothing": ({"inputs": [{"content": []}]}, 422, "invalid_request"),
    "an unknown part": (
        {"inputs": [{"content": [{"type": "audio", "audio": "x"}]}]},
        422,
        "invalid_request",
    ),
    "an unknown model": ({"texts": ["a"], "model": "embed-v4.0"}, 404, "unknown_model"),
    "an unknown field": ({"texts": ["a"], "max_tokens": 8}, 422, "invalid_request"),
    "an unknown type": ({"texts": ["a"], "embedding_types": ["int4"]}, 422, "invalid_request"),
    "no types": ({"texts": ["a"], "embedding_types": []}, 422, "invalid_request"),
    "an unknown cut": ({"texts": ["a"], "truncate": "MIDDLE"}, 422, "invalid_request"),
    "null": ({"texts": None}, 422, "invalid_request"),
    "texts of a wrong type": ({"texts": "a"}, 422, "invalid_request"),
    "10,000 texts": ({"texts": ["a"] * 10_000}, 422, "too_many_texts"),
    "100 images": ({"images": [URI] * 100}, 422, "too_many_images"),
    "a text of 1 MB": ({"texts": ["a", "x" * 2**20]}, 422, "text_too_long"),
    "a URL, switched off": ({"images": ["http://x.org/cat.png"]}, 422, "image_url_disabled"),
    "a long URL": ({"images": ["http://x.org/" + "x" * 4096]}, 422, "invalid_request"),
    "a path": ({"images": ["photos/my-cat.jpg"]}, 422, "image_is_path"),
    "a million wrong texts": (
        b'{"model":"small","input_type":"clustering","texts":[' + b"0," * 2**20 + b"0]}",
        413,
        "body_too_complex",
    ),
    "a million wrong parts": (
        b'{"model":"small","input_type":"clustering","inputs":[{"content":[' + b"0," * 2**20 + b"0]}]}",
        413,
        "body_too_complex",
    ),
    "output_dimension of 0": ({"texts": ["a"], "output_dimension": 0}, 422, "invalid_request"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_are_refused_in_coheres_shape(client: TestClient, name: str) -> None:
    body, status, code = BODIES[name]
    filled = (
        body
        if isinstance(body, bytes)
        else json.dumps({"model": "small", "input_type": "clustering", **body}).encode()
    )
    answer = client.post("/v2/embed", content=filled, headers={"Content-Type": "application/json"})
    error = answer.json()
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert error.keys() - {"index"} == {"id", "message", "type", "code", "param"}


PLACES: dict[str, tuple[Any, str, int | None, str]] = {
    "a number as a URL": (
        [{"type": "image_url", "image_url": {"url": 5}}],
        "inputs[1].content[0].image_url.url", None, "must be a string",
    ),
    "a URL in place of its object": (
        [{"type": "image_url", "image_url": URI}],
        "inputs[1].content[0].image_url", None, "an object with url, detail",
    ),
    "a number as a text": (
        [{"type": "text", "text": 5}], "inputs[1].content[0].text", None, "must be a string",
    ),
    "an unknown field": (
        [{"type": "text", "text": "a", "x": 1}], "inputs[1].content[0].x", None, "the fields here are type, text.",
    ),
    "an unknown part": (
        [{"type": "audio", "audio": "x"}], "inputs[1].content", 0, '{"type": "text", "text": ...}',
    ),
    "a part of an unhashable type": ([{"type": []}], "inputs[1].content", 0, '{"type": "text", "text": ...}'),
    "a text in place of a part": (["a"], "inputs[1].content", 0, '{"type": "text", "text": ...}'),
    "a text in place of the list": ("a", "inputs[1].content", None, "must be a list"),
    "two parts": ([TEXT_PART, TEXT_PART], "inputs", 1, "send each as an input"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLACES)
def test_a_wrong_input_is_told_its_place(client: TestClient, name: str) -> None:
    content, param, index, said = PLACES[name]
    inputs = [{"content": [TEXT_PART]}, {"content": content}]
    answer = client.post("/v2/embed", json={"model": "small", "input_type": "clustering", "inputs": inputs})
    error = answer.json()
    assert answer.status_code == 422
    assert (error["param"], error.get("index")) == (param, index)
    assert said in error["message"]


def test_every_error_below_v2_has_coheres_shape(client: TestClient) -> None:
    answers = {
        404: client.post("/v2/rerank", json={}),
        405: client.get("/v2/embed"),
        413: client.post(
            "/v2/embed", content=bytes(50 * 2**20), headers={"Content-Type": "application/json"}
        ),
        415: client.post("/v2/embed", files=[("images", ("x.png", png()))], data={"model": "small"}),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert isinstance(answer.json()["message"], str)
    assert answers[405].headers["Allow"] == "POST"
