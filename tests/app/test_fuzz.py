"""schemathesis over the whole description, with a key of each scope: no 500, and only what the description allows."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sds_clip.app.keys import Scope, create_key
from sds_clip.app.store import Store
from tests.app.conftest import base64_of, png
from tests.app.serverside import running_server
from tests.checks import claimed_check

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
TIMEOUT_S = 120

KEYS: dict[str, tuple[float, tuple[Scope, ...]]] = {
    "no key": (0.05, ()),
    "infer": (0.2, ("infer",)),
    "train": (0.25, ("train",)),
    "admin": (0.15, ("admin",)),
    "every scope": (0.35, ("infer", "train", "admin")),
}
"""Each key's share of the requests, and its scopes."""


@dataclass(frozen=True)
class Target:
    """A service with something in it."""

    cases: list[tuple[bool, st.SearchStrategy[Case]]]
    """Of each operation: whether it has a body; requests that its description allows, and some that it does not."""
    secrets: dict[str, str]
    known: dict[str, list[Any]]
    """By the name of a parameter or a field: what is there, so that requests come further than to a 404."""


@pytest.fixture(scope="module")
def target(small_reference: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "roots" / "set").mkdir(parents=True)
    keys_file = folder / "keys.json"
    secrets = {
        name: create_key(keys_file, f"key-{number}", scopes)
        for number, (name, (_, scopes)) in enumerate(KEYS.items())
        if scopes
    }
    database_url = f"sqlite:///{folder}/jobs.db"
    with running_server(
        folder,
        "--model",
        small_reference,
        "--keys-file",
        str(keys_file),
        SDS_CLIP_DATABASE_URL=database_url,
        SDS_CLIP_DATASET_ROOTS=str(folder / "roots"),
        constants={"sds_clip.app.main.CLASS_WAIT_S": 0.5, "sds_clip.app.fetch.TIMEOUT_S": 0.5},
        SDS_CLIP_ALLOW_URL_IMAGES="1",
    ) as server:
        schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        # A stream without an end has tests of its own.
        operations = [found.ok() for found in schema.exclude(path="/events").get_all_operations()]
        cases = [
            (bool(operation.body), st.one_of(operation.as_strategy(mode) for mode in GenerationMode))
            for operation in operations
        ]
        yield Target(
            cases,
            secrets,
            _known(server.url, secrets["every scope"], database_url, folder, small_reference),
        )


def _known(url: str, secret: str, database_url: str, folder: Path, reference: str) -> dict[str, list[Any]]:
    store = Store(database_url)
    added = store.datasets.add(format="pairs", source={})
    store.datasets.accept(claimed_check(store), content_hash="0" * 64, counts={"samples": 100, "usable": 100})
    store.close()
    request = {"teacher": "demo", "training_data": added.id, "hyperparameters": {"steps": 10}}
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}) as client:
        jobs = [client.post("/finetune", json=request).raise_for_status().json()["id"] for _ in range(3)]
        versions = [version["id"] for version in client.get("/models").raise_for_status().json()["versions"]]
    assert versions
    roots = folder / "roots"
    models = [*versions, "default", reference]
    sets = [added.id]
    return {
        "job_id": jobs,
        "dataset_id": sets,
        "training_data": sets,
        "validation_data": sets,
        "data": sets,
        "version": [*versions, "default"],
        "alias": ["default", "other"],
        "base": models,
        "model": models,
        "teacher": ["demo"],
        "images": [[base64_of(png())], [base64_of(png()), {"url": "http://xn--/"}]],
        "name": ["mine"],
        "format": ["pairs"],
        "benchmark": ["winoground"],
        "labels": [["cat", "dog"]],
        "texts": [["a cat"]],
        "templates": ["simple"],
        "source": [f"{roots}/set", f"{roots}/{'a' * 300}", f"file://{roots}/{{0..9}}.tar"],
    }


def _check(target: Target, key: str, count: int, in_turn: int) -> Counter[tuple[str, int]]:
    """Send the key's share of `count` requests, `in_turn` to each operation before the next, and count the answers.

    An operation with a body gets four times as many.
    """
    count = round(count * KEYS[key][0])
    answered: Counter[tuple[str, int]] = Counter()
    headers = {"Authorization": f"Bearer {target.secrets[key]}"} if key in target.secrets else {}

    def send(case: Case, data: st.DataObject, session: requests.Session) -> None:
        if data.draw(st.booleans(), label="known values"):
            alone = data.draw(st.booleans(), label="and nothing else")
            for place in (case.path_parameters, case.body):
                if isinstance(place, dict):
                    for name in sorted(place):
                        if name in target.known:
                            place[name] = data.draw(st.sampled_from(target.known[name]), label=name)
                        elif alone and place is case.body:
                            del place[name]
        answer = case.call(headers=headers, session=session, timeout=TIMEOUT_S)
        answered[f"{case.method} {case.operation.path}", answer.status_code] += 1
        assert answer.status_code != 500, answer.text
        case.validate_response(answer, checks=CHECKS)

    with requests.Session() as session:
        for turn in itertools.count():
            for has_body, cases in target.cases:
                if answered.total() >= count:
                    return answered

                @seed(turn)
                @settings(
                    max_examples=4 * in_turn if has_body else in_turn,
                    deadline=None,
                    database=None,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                )
                @given(case=cases, data=st.data())
                def ask(case: Case, data: st.DataObject) -> None:
                    send(case, data, session)

                ask()
    raise AssertionError("unreachable")


def _assert_reached(answered: Counter[tuple[str, int]], key: str) -> None:
    """The key lets in where it should, and nowhere else."""
    # The routes of sessions look at the key in a body or a cookie.
    answered = Counter({each: count for each, count in answered.items() if not each[0].endswith(" /session")})
    statuses = {status for _, status in answered}
    taken = {operation for operation, status in answered if status < 300}
    if key == "no key":
        assert 401 in statuses
        assert taken <= {"GET /health", "GET /ready", "GET /metrics"}
    elif key == "every scope":
        assert not statuses & {401}
        # Some operations need the id of something that an earlier request made.
        assert len(taken) > len({operation for operation, _ in answered}) / 3, answered
    else:
        assert 403 in statuses
        assert 401 not in statuses


@pytest.mark.parametrize("key", KEYS)
def test_generated_requests_get_documented_answers(target: Target, key: str) -> None:
    _assert_reached(_check(target, key, 1_000, in_turn=3), key)


@pytest.mark.long
@pytest.mark.parametrize("key", KEYS)
def test_many_generated_requests_get_documented_answers(target: Target, key: str) -> None:
    answered = _check(target, key, 20_000, in_turn=25)
    _assert_reached(answered, key)
