"""The description of the service, and the service against its description."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import BaseSchema, Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from tests.app.serverside import running_server


@pytest.fixture(scope="module")
def schema(small_reference: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BaseSchema]:
    with running_server(
        tmp_path_factory.mktemp("server"), "--model", small_reference, SDS_CLIP_CLASS_WAIT_S="0.5"
    ) as server:
        yield schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_every_operation_documents_its_errors_and_its_examples_work(client: TestClient) -> None:
    description = client.get("/openapi.json").json()
    for path in ("/match", "/classify", "/embed"):
        operation = description["paths"][path]["post"]
        documented = {"400", "401", "403", "404", "408", "413", "415", "422", "429", "500", "503", "504"}
        assert documented <= set(operation["responses"])
        content = operation["requestBody"]["content"]
        assert set(content) == {"application/json", "multipart/form-data"}
        for example in content["application/json"]["examples"].values():
            assert client.post(path, json=example["value"]).status_code == 200


@pytest.mark.parametrize("path", ["/match", "/classify", "/embed"])
def test_generated_requests_get_documented_answers(schema: BaseSchema, path: str) -> None:
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=schema[path]["POST"].as_strategy())
    def check(case: Case) -> None:
        # What the schema allows may still be no image, or too many prompts: a 422 is a documented answer.
        # A label set in the making is a 503.
        answer = case.call()
        assert answer.status_code != 500
        case.validate_response(answer, excluded_checks=[positive_data_acceptance, not_a_server_error])

    check()


@pytest.mark.parametrize("path", ["/models", "/health", "/ready", "/metrics"])
def test_status_routes_answer_as_documented(schema: BaseSchema, path: str) -> None:
    schema[path]["GET"].Case().call_and_validate()
