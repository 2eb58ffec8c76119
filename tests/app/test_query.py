"""Query parameters that a route does not declare, on every route there is."""

import pytest

from tests.app.jobs.conftest import Service, error_of, refusing

__all__ = ["refusing"]


@pytest.mark.parametrize(
    ("path", "wrong", "near"),
    [("/jobs?limt=5", "limt", "limit"), ("/jobs?limit=5&aftr=x", "aftr", "after"),
     ("/models?Limit=5", "Limit", "limit"), ("/jobs/none/events?last=5", "last", "after, limit"),
     ("/match?limit=5", "limit", "none")],
)  # fmt: skip
def test_misspelt_parameter_is_refused_with_the_near_one(
    refusing: Service, path: str, wrong: str, near: str
) -> None:
    method = "POST" if path.startswith("/match") else "GET"
    error = error_of(refusing.client.request(method, path), 422)
    assert (error["code"], error["param"]) == ("unknown_parameter", wrong)
    assert near in error["message"]


def test_every_route_refuses_an_unknown_parameter(refusing: Service) -> None:
    description = refusing.client.get("/openapi.json").json()
    operations = [(method, path) for path, methods in description["paths"].items() for method in methods]
    assert len(operations) > 20
    for method, path in operations:
        answer = refusing.client.request(
            method, path.replace("{", "x").replace("}", ""), params={"unknown": "1"}
        )
        error = answer.json() if path.startswith("/v2/") else error_of(answer, 422)  # Cohere's shape
        assert answer.status_code == 422
        assert (error["code"], error["param"]) == ("unknown_parameter", "unknown"), (method, path)
        assert "422" in description["paths"][path][method]["responses"]


def test_declared_parameters_are_taken(refusing: Service) -> None:
    for path in ("/jobs?limit=5&status=queued", "/models?limit=5", "/datasets?limit=1&status=ready"):
        assert refusing.client.get(path).status_code == 200


def test_value_with_a_nul_character_is_refused(refusing: Service) -> None:
    for path in ("/models?name=a%00b", "/jobs?after=%00", "/datasets?name=%00"):
        assert error_of(refusing.client.get(path), 422)["code"] == "invalid_request"


@pytest.mark.parametrize("name", ["", "x" * 10_000, "%00", "%ed%a0%80", "%ff", "a[b]", "<script>"])
def test_odd_name_is_refused_and_cut_short(refusing: Service, name: str) -> None:
    error = error_of(refusing.client.get(f"/jobs?{name}=1"), 422)
    assert error["code"] == "unknown_parameter"
    assert len(error["param"]) <= 64
