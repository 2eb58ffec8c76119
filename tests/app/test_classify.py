"""POST /classify, against open_clip."""

import io
import time

import open_clip
import PIL.Image
import pytest
import torch
from starlette.testclient import TestClient

from sds_clip.app.settings import Settings
from sds_clip.models.clip.model import Clip
from tests.app.conftest import base64_of, png, serving

LABELS = ["circle", "square", "star", "ring"]
TEMPLATES = ["a photo of a {}.", "the {}"]
IMAGES = [png(seed=1), png(seed=2)]


def expected_probabilities(clip: Clip, templates: list[str]) -> torch.Tensor:
    classifier = open_clip.build_zero_shot_classifier(
        clip.network, open_clip.get_tokenizer("ViT-B-32"), LABELS, templates
    )
    pixels = torch.stack([clip.preprocess(PIL.Image.open(io.BytesIO(data))) for data in IMAGES])
    with torch.inference_mode():
        logits = clip.logit_scale * clip.network.encode_image(pixels, normalize=True) @ classifier
    return torch.as_tensor(logits.softmax(dim=1))


def test_predictions_equal_open_clips_zero_shot_classifier(client: TestClient, small_clip: Clip) -> None:
    request = {"images": [base64_of(data) for data in IMAGES], "labels": LABELS, "templates": TEMPLATES}
    body = client.post("/classify", json=request).json()
    for result, expected in zip(body["results"], expected_probabilities(small_clip, TEMPLATES), strict=True):
        order = expected.argsort(descending=True).tolist()
        assert [prediction["index"] for prediction in result["predictions"]] == order
        assert [prediction["label"] for prediction in result["predictions"]] == [LABELS[n] for n in order]
        got = torch.tensor([prediction["probability"] for prediction in result["predictions"]])
        torch.testing.assert_close(got, expected[order], atol=1e-5, rtol=0)


def test_top_k_cuts_the_list_but_not_the_probabilities(client: TestClient) -> None:
    request = {"images": [base64_of(IMAGES[0])], "labels": LABELS, "templates": TEMPLATES}
    every = client.post("/classify", json=request).json()["results"][0]["predictions"]
    two = client.post("/classify", json={**request, "top_k": 2}).json()["results"][0]["predictions"]
    assert two == every[:2]


def test_named_templates_are_open_clips(client: TestClient, small_clip: Clip) -> None:
    request = {"images": [base64_of(data) for data in IMAGES], "labels": LABELS, "top_k": 1}
    templates = [template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    expected = expected_probabilities(small_clip, templates).max(dim=1).values
    body = client.post("/classify", json={**request, "templates": "openai"}).json()
    got = torch.tensor([result["predictions"][0]["probability"] for result in body["results"]])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_set_in_the_making_answers_503_with_progress_and_then_200(
    settings: Settings, small_clip: Clip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.main.CLASS_WAIT_S", 0.0)
    request = {
        "images": [base64_of(IMAGES[0])],
        "labels": [f"label {n}" for n in range(600)],
        "templates": ["{}"],
    }
    with serving(settings, small_clip) as client:
        answer = client.post("/classify", json=request)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "classes_building"
        assert "600" in answer.json()["error"]["message"]
        assert int(answer.headers["Retry-After"]) >= 1
        deadline = time.monotonic() + 60
        while answer.status_code != 200:
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "classes_building")
            assert time.monotonic() < deadline
            answer = client.post("/classify", json=request)


def test_multipart_takes_named_sets_and_lists(client: TestClient) -> None:
    files = [("images", ("a", IMAGES[0]))]
    labels = client.post(
        "/classify", files=files, data={"labels": LABELS, "templates": TEMPLATES, "top_k": "1"}
    )
    request = {"images": [base64_of(IMAGES[0])], "labels": LABELS, "templates": TEMPLATES, "top_k": 1}
    assert labels.json() == client.post("/classify", json=request).json()
    named = client.post("/classify", files=files, data={"labels": LABELS, "templates": "openai"})
    assert named.status_code == 200


def test_a_template_without_a_place_for_the_label_is_refused(client: TestClient) -> None:
    request = {"images": [base64_of(IMAGES[0])], "labels": LABELS, "templates": ["a {}", "a photo"]}
    error = client.post("/classify", json=request).json()["error"]
    assert (error["code"], error["index"]) == ("invalid_template", 1)


def test_a_template_reads_nothing_but_the_label(client: TestClient) -> None:
    request = {
        "images": [base64_of(IMAGES[0])],
        "labels": ["{0.__class__}", "{}"],
        "templates": ["{} {0} {x}"],
    }
    assert client.post("/classify", json=request).status_code == 200
