"""The description of the service, and the service against its description."""

import json
import re
from collections import Counter
from typing import Any

import pytest
from fastapi import FastAPI
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from starlette.testclient import TestClient

from sds_clip.app.edge.openapi import describe_json, install_openapi
from sds_clip.app.main import api
from sds_clip.app.schemas.common import PIXEL
from sds_clip.models.validation import explain


class Detail(BaseModel):
    size: int


class Wish(BaseModel):
    details: list[Detail]


def test_route_that_describes_its_body_is_described_completely() -> None:
    app = FastAPI()
    app.add_api_route("/wishes", lambda: None, methods=["POST"], openapi_extra=describe_json(Wish))
    install_openapi(app)
    description = app.openapi()
    content = description["paths"]["/wishes"]["post"]["requestBody"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/Wish"}
    schemas = description["components"]["schemas"]
    assert schemas["Wish"]["properties"]["details"]["items"] == {"$ref": "#/components/schemas/Detail"}
    assert schemas["Detail"]["properties"].keys() == {"size"}


def test_every_operation_documents_its_errors(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    for path in ("/match", "/classify", "/embed"):
        operation = description["paths"][path]["post"]
        documented = {"400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503", "504"}
        assert documented <= set(operation["responses"])
        content = operation["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data"}


INFERENCE = (
    "/match",
    "/classify",
    "/embed",
    "/match/compare",
    "/classify/compare",
    "/v1/embeddings",
    "/v2/embed",
)


def test_every_example_of_a_request_for_a_model_is_answered(client: TestClient) -> None:
    counts = Counter[str]()
    for path in INFERENCE:
        body = client.get("/openapi.json").json()["paths"][path]["post"]["requestBody"]
        for media_type, content in body["content"].items():
            for example in content["examples"].values():
                counts[media_type] += 1
                sent: dict[str, Any] = {"json": example["value"]}
                if media_type == "multipart/form-data":
                    fields = [
                        (name, each) for name, value in example["value"].items() for each in listed(value)
                    ]
                    sent = {"files": [(name, (None, str(each))) for name, each in fields]}
                answer = client.post(path, **sent)
                assert answer.status_code == 200, (path, media_type, answer.text)
    assert counts == {"application/json": 10, "multipart/form-data": 6}


def listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


IMAGE = {"type": "image_url", "image_url": {"url": PIXEL}}
EMBED = {"model": "small", "input_type": "image"}
ONE_KIND = [
    ("/v2/embed", {**EMBED, "images": [PIXEL]}, True),
    ("/v2/embed", {**EMBED, "input_type": "search_query", "texts": ["a"]}, True),
    ("/v2/embed", {**EMBED, "inputs": [{"content": [IMAGE]}], "embedding_types": ["int8"]}, True),
    ("/v2/embed", EMBED, False),
    ("/v2/embed", {**EMBED, "images": []}, False),
    ("/v2/embed", {**EMBED, "images": [PIXEL], "inputs": [{"content": [IMAGE]}]}, False),
    ("/v2/embed", {**EMBED, "inputs": [{"content": [IMAGE, IMAGE]}]}, False),
    ("/v2/embed", {**EMBED, "images": [PIXEL], "embedding_types": []}, False),
    ("/v2/embed", {**EMBED, "images": [PIXEL], "embedding_types": ["int4"]}, False),
    ("/v2/embed", {"model": "small", "images": [PIXEL]}, False),
    ("/v2/embed", {"model": "small", "input_type": "search_query", "texts": [""]}, False),
    ("/embed", {"texts": ["a"]}, True),
    ("/embed", {"images": [PIXEL]}, True),
    ("/embed", {}, False),
    ("/embed", {"images": [PIXEL], "texts": ["a"]}, False),
]


@pytest.mark.parametrize(("path", "body", "allowed"), ONE_KIND)
def test_the_description_allows_what_is_answered_and_no_more(
    client: TestClient, path: str, body: dict[str, Any], allowed: bool
) -> None:
    description = client.get("/openapi.json").json()
    told = description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator({**description, **told})
    assert validator.is_valid(body) == allowed
    assert client.post(path, json=body).status_code == (200 if allowed else 422)


def test_every_pattern_is_told_in_words(client: TestClient) -> None:
    patterns = set(re.findall(r'"pattern":("(?:[^"\\]|\\.)*")', client.get("/openapi.json").text))

    assert patterns
    for pattern in map(json.loads, patterns):
        detail = {"type": "string_pattern_mismatch", "loc": (), "msg": "", "ctx": {"pattern": pattern}}
        assert pattern not in explain(detail)


OPERATIONS = {
    "match": "post /match",
    "compare_matches": "post /match/compare",
    "compare_classes": "post /classify/compare",
    "classify": "post /classify",
    "embed": "post /embed",
    "openai_embeddings": "post /v1/embeddings",
    "openai_models": "get /v1/models",
    "openai_model": "get /v1/models/{model}",
    "cohere_embed": "post /v2/embed",
    "list_models": "get /models",
    "get_serving_status": "get /models/status",
    "get_version": "get /models/{version}",
    "delete_version": "delete /models/{version}",
    "promote_version": "post /models/{version}/promote",
    "rollback_alias": "post /models/{alias}/rollback",
    "remove_alias": "post /models/{alias}/remove",
    "lock_alias": "post /models/{alias}/lock",
    "unlock_alias": "post /models/{alias}/unlock",
    "download_version": "get /models/{version}/download",
    "get_version_log": "get /models/{version}/log",
    "finetune": "post /finetune",
    "evaluate": "post /evaluate",
    "list_jobs": "get /jobs",
    "get_job": "get /jobs/{job_id}",
    "delete_job": "delete /jobs/{job_id}",
    "list_job_events": "get /jobs/{job_id}/events",
    "list_job_metrics": "get /jobs/{job_id}/metrics",
    "get_job_curves": "get /jobs/{job_id}/curves",
    "list_job_checkpoints": "get /jobs/{job_id}/checkpoints",
    "follow_changes": "get /events",
    "list_promotions": "get /promotions",
    "get_job_log": "get /jobs/{job_id}/log",
    "get_job_report": "get /jobs/{job_id}/report",
    "cancel_job": "post /jobs/{job_id}/cancel",
    "pause_job": "post /jobs/{job_id}/pause",
    "resume_job": "post /jobs/{job_id}/resume",
    "retry_job": "post /jobs/{job_id}/retry",
    "list_items": "get /jobs/{job_id}/items",
    "compare_jobs": "get /jobs/{job_id}/comparison",
    "list_workers": "get /workers",
    "add_dataset": "post /datasets",
    "list_dataset_events": "get /datasets/{dataset_id}/events",
    "list_datasets": "get /datasets",
    "get_dataset": "get /datasets/{dataset_id}",
    "delete_dataset": "delete /datasets/{dataset_id}",
    "sign_in": "post /session",
    "get_session": "get /session",
    "sign_out": "delete /session",
    "list_samples": "get /datasets/{dataset_id}/samples",
    "get_sample_image": "get /datasets/{dataset_id}/samples/{index}/images/{n}",
    "health": "get /health",
    "ready": "get /ready",
    "metrics": "get /metrics",
}
"""What generated clients call each operation. A new name for an old operation breaks their users' code."""


def test_operations_keep_their_ids() -> None:
    paths = api().openapi()["paths"]
    found = [
        (operation["operationId"], f"{method} {path}")
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]
    assert sorted(found) == sorted(OPERATIONS.items())


def test_every_operation_that_a_key_allows_may_be_called_in_a_session() -> None:
    description = api().openapi()
    schemes = description["components"]["securitySchemes"]
    assert (schemes["session"]["in"], schemes["session"]["name"]) == ("cookie", "sds_clip_session")
    kinds = {
        tuple(sorted(name for way in operation["security"] for name in way))
        for operations in description["paths"].values()
        for operation in operations.values()
    }
    assert kinds == {(), ("key", "session"), ("key", "key", "session", "session")}


def test_every_operation_documents_the_request_id_which_its_answer_repeats(client: TestClient) -> None:
    for operations in client.get("/openapi.json").json()["paths"].values():
        for operation in operations.values():
            assert "X-Request-Id" in [each["name"] for each in operation["parameters"]]
    assert client.get("/health", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"


JOB_ROUTES = {
    "/finetune": "post", "/evaluate": "post", "/datasets": "post get", "/datasets/{dataset_id}": "get delete",
    "/jobs": "get", "/jobs/{job_id}": "get delete",
    **{f"/jobs/{{job_id}}/{each}": "get" for each in ("events", "metrics", "curves", "checkpoints", "report")},
    **{f"/jobs/{{job_id}}/{each}": "post" for each in ("cancel", "pause", "resume", "retry")},
    "/workers": "get", "/promotions": "get", "/models": "get", "/models/{version}": "get delete",
    "/models/{version}/promote": "post", "/models/{version}/download": "get",
    **{f"/models/{{alias}}/{each}": "post" for each in ("rollback", "remove", "lock", "unlock")},
}  # fmt: skip


def test_every_route_about_jobs_documents_its_errors(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    for path, method in (
        (path, method) for path, methods in JOB_ROUTES.items() for method in methods.split()
    ):
        responses = description["paths"][path][method]["responses"]
        documented = {"401", "403", "404", "422"} | (set() if path == "/models" else {"500", "501", "503"})
        assert documented <= set(responses), (path, method)
        assert all("description" in each for each in responses.values())
    for path in ("/finetune", "/evaluate"):
        content = description["paths"][path]["post"]["requestBody"]["content"]
        assert set(content) == {"application/json"}
    upload = description["paths"]["/datasets"]["post"]["requestBody"]["content"]
    assert set(upload["multipart/form-data"]["schema"]["properties"]) == {
        "name", "format", "max_bad_share", "file", "shards",
    }  # fmt: skip
