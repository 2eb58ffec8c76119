"""POST /match, against open_clip."""

import io

import open_clip
import PIL.Image
import torch
from starlette.testclient import TestClient

from sds_clip.models.clip.model import Clip
from tests.app.conftest import base64_of, png

TEXTS = ["a red circle", "a blue square", "three green stars"]
IMAGES = [png(seed=1), png(64, 20, seed=2, kind="JPEG"), png(33, 33, seed=3, kind="WEBP")]


def open_clip_logits(reference: str) -> torch.Tensor:
    """The logits as open_clip's README computes them."""
    model, _, preprocess = open_clip.create_model_and_transforms(reference)
    model.eval()
    pixels = torch.stack([preprocess(PIL.Image.open(io.BytesIO(data))) for data in IMAGES])
    with torch.inference_mode():
        images = model.encode_image(pixels, normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(reference)(TEXTS), normalize=True)
        return torch.as_tensor(model.logit_scale.exp() * images @ texts.T)


def test_scores_logits_and_probabilities_equal_open_clips(
    client: TestClient, small_reference: str, small_clip: Clip
) -> None:
    answer = client.post("/match", json={"images": [base64_of(data) for data in IMAGES], "texts": TEXTS})
    assert answer.status_code == 200
    body = answer.json()
    logits = open_clip_logits(small_reference)
    got = torch.tensor([result["logits"] for result in body["results"]])
    torch.testing.assert_close(got, logits, atol=1e-4, rtol=0)
    scores = torch.tensor([result["scores"] for result in body["results"]])
    torch.testing.assert_close(scores, logits / small_clip.logit_scale, atol=1e-5, rtol=0)
    probabilities = torch.tensor([result["probabilities"] for result in body["results"]])
    torch.testing.assert_close(probabilities, logits.softmax(dim=1), atol=1e-5, rtol=0)
    by_text = torch.tensor(body["text_probabilities"])
    torch.testing.assert_close(by_text, logits.T.softmax(dim=1), atol=1e-5, rtol=0)
    best = logits.argmax(dim=1).tolist()
    assert [result["best"] for result in body["results"]] == best
    assert [result["best_text"] for result in body["results"]] == [TEXTS[place] for place in best]
    assert [result["index"] for result in body["results"]] == [0, 1, 2]
    assert body["model"] == {"name": "small", "version": small_clip.version, "generation": 1}


def test_multipart_data_uris_and_base64_give_the_same_answer(client: TestClient) -> None:
    plain = client.post("/match", json={"images": [base64_of(data) for data in IMAGES], "texts": TEXTS})
    uris = [f"data:image/png;base64,{base64_of(data)}" for data in IMAGES]
    as_uris = client.post("/match", json={"images": uris, "texts": TEXTS})
    files = [("images", ("picture", data)) for data in IMAGES]
    multipart = client.post("/match", files=files, data={"texts": TEXTS})
    assert plain.json() == as_uris.json() == multipart.json()


def test_a_bad_image_fails_the_request_and_is_named(client: TestClient) -> None:
    answer = client.post("/match", json={"images": [base64_of(png()), base64_of(b"<svg/>")], "texts": TEXTS})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["index"]) == ("image_format", "images", 1)


def test_a_bad_image_is_skipped_on_request_and_the_others_are_answered(client: TestClient) -> None:
    good = client.post(
        "/match", json={"images": [base64_of(data) for data in IMAGES[:2]], "texts": TEXTS}
    ).json()
    images = [base64_of(IMAGES[0]), base64_of(IMAGES[1][:50]), base64_of(IMAGES[1])]
    body = client.post("/match", json={"images": images, "texts": TEXTS, "on_error": "skip"}).json()
    assert [result["index"] for result in body["results"]] == [0, 1, 2]
    assert body["results"][1]["error"]["code"] == "image_truncated"
    assert body["results"][0] == good["results"][0]
    assert body["results"][2]["scores"] == good["results"][1]["scores"]
    assert body["text_probabilities"] == good["text_probabilities"]


def test_all_images_bad_and_skipped_leaves_no_scores(client: TestClient) -> None:
    body = client.post(
        "/match", json={"images": [base64_of(b"x")] * 2, "texts": TEXTS, "on_error": "skip"}
    ).json()
    assert [result["error"]["code"] for result in body["results"]] == ["image_format"] * 2
    assert body["text_probabilities"] == [[], [], []]


def test_a_single_image_is_not_compared_with_others(client: TestClient) -> None:
    one = {"images": [base64_of(IMAGES[0])], "texts": TEXTS}
    alone = client.post("/match", json=one).json()
    (compared,) = client.post("/match/compare", json={**one, "models": ["default"]}).json()["answers"]
    assert alone.keys() == compared.keys() == {"model", "results"}


def test_default_names_the_first_model(client: TestClient) -> None:
    body = {"images": [base64_of(png())], "texts": TEXTS}
    assert (
        client.post("/match", json={**body, "model": "default"}).json()
        == client.post("/match", json=body).json()
    )
