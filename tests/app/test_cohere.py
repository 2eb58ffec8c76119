"""POST /v2/embed, against /embed and against what Cohere's clients expect."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from starlette.testclient import TestClient

from sds_clip.app.registry.golden_file import read_golden, write_golden
from sds_clip.app.settings import Settings
from sds_clip.models.checkpoints.delta_file import read_delta
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.golden import Golden
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.quantize import range_of, to_int8
from tests.app.conftest import base64_of, embed, png, serving
from tests.app.serving.swapping import publish_tuned
from tests.app.test_bad_input import IMAGE_PART, TEXT_PART, URI

IMAGE = base64_of(png(seed=1))
TEXT = "a red circle"
LONG = "circle " * 200


def ask(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/v2/embed", json={"model": "small", "input_type": "classification", **body})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    assert found["id"] == answer.headers["X-Request-Id"]
    return found


def refusal(client: TestClient, status: int, **body: Any) -> dict[str, Any]:
    answer = client.post("/v2/embed", json={"model": "small", "input_type": "clustering", **body})
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()
    return error


def floats(client: TestClient, **body: Any) -> NDArray[np.float32]:
    return np.array(ask(client, **body)["embeddings"]["float"], dtype=np.float32)


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
        error = refusal(client, 422, texts=["b", "circle " * 76], truncate=truncate)
        assert (error["code"], error["param"], error["index"]) == ("text_too_long", "texts", 1)


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


def codes(client: TestClient, model: str = "small", **options: Any) -> NDArray[np.int8]:
    found = ask(client, model=model, texts=[TEXT], embedding_types=["int8"], **options)
    return np.array(found["embeddings"]["int8"], dtype=np.int8)


def test_range_of_an_own_model_is_that_of_the_first_process(settings: Settings, small_clip: Clip) -> None:
    with serving(settings, small_clip) as client:
        vectors = embed(client, texts=[TEXT])
        first = codes(client)
    np.testing.assert_array_equal(first, to_int8(vectors, range_of(Golden.of(small_clip))))
    # Another range in the folder stands for a first process that computed in another precision.
    folder = settings.data_dir / "golden" / small_clip.version
    golden = read_golden(folder)
    peaked = golden.text_features.clone().zero_()
    peaked[:, 0] = 1
    write_golden(folder, Golden(golden.seed, golden.image_features, peaked))
    with serving(settings, small_clip) as client:
        np.testing.assert_array_equal(codes(client), to_int8(vectors, 1.25))


def test_range_of_a_published_version_comes_from_its_files(
    settings: Settings, small_clip: Clip, tmp_path: Path
) -> None:
    versions = settings.data_dir / "versions"
    version = publish_tuned(versions, small_clip, tmp_path / "delta", seed=0)
    with serving(settings, small_clip) as client:
        vectors = embed(client, model=version, texts=[TEXT])
        expected = to_int8(vectors, range_of(read_delta(versions / version).golden))
        np.testing.assert_array_equal(codes(client, model=version), expected)
    assert not (settings.data_dir / "golden").exists()


def test_range_that_cannot_be_kept_refuses_only_the_types_that_need_it(
    settings: Settings, small_clip: Clip
) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "golden").write_text("a file where the folder belongs")
    with serving(settings, small_clip) as client:
        error = refusal(client, 503, texts=[TEXT], embedding_types=["int8"])
        assert error["code"] == "unavailable"
        assert ask(client, texts=[TEXT], embedding_types=["ubinary"])


def test_shorter_vectors_are_quantised_by_a_range_of_their_own(
    shortened: TestClient, small_clip: Clip
) -> None:
    whole = embed(shortened, texts=[TEXT])
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(floats(shortened, texts=[TEXT], output_dimension=8), expected, atol=1e-6)
    difference = codes(shortened, output_dimension=8) - to_int8(expected, range_of(Golden.of(small_clip), 8))
    assert np.abs(difference).max() <= 1  # the last bit of a float may round the other way


def test_other_lengths_are_refused(client: TestClient) -> None:
    error = refusal(client, 400, texts=[TEXT], output_dimension=12)
    assert (error["code"], error["param"]) == ("dimensions_not_offered", "output_dimension")


# Bad input


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
