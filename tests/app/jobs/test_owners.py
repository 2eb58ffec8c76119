"""Two keys beside each other: each sees and changes its own, and another's answers as an unknown one does."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
from fastapi import FastAPI
from httpx import Response

from sds_clip.app.edge import auth
from sds_clip.app.keys import create_key
from sds_clip.app.store.records import Move, NewVersion
from sds_clip.models.clip.model import Clip
from tests.app.jobs.conftest import USERS, Keyed, error_of, running
from tests.app.serving.swapping import MATCH
from tests.databases import Databases
from tests.worker.waiting import until

SHOWN = ("content-type", "location", "retry-after", "content-disposition")


@dataclass
class Alices:
    """A record of each sort, all of one key, and names that nothing has."""

    keyed: Keyed
    own: dict[str, list[str]]
    """Ids by the name that a route has for them."""
    unknown: dict[str, str]


@pytest.fixture(scope="module")
def alices(
    tmp_path_factory: pytest.TempPathFactory, sqlite_databases: Databases, small_clip: Clip
) -> Iterator[Alices]:
    folder = tmp_path_factory.mktemp("owners")
    file = folder / "keys.json"
    keys = {name: create_key(file, name, ["infer", "train"]) for name in USERS}
    keys["root"] = create_key(file, "root", ["infer", "train", "admin"])
    url = sqlite_databases.url(sqlite_databases.migrated())
    values = {"data_dir": folder / "data", "database_url": url, "keys_file": file, "swap_poll_s": 0.02}
    with running(small_clip, **values) as service:
        keyed = Keyed(service, keys, folder, small_clip)
        version = keyed.version("alice")
        ended, queued = keyed.evaluation("alice"), keyed.job("alice")
        keyed.ask("alice", "POST", f"/jobs/{queued}/pause")
        keyed.give("bobs", "bob", small_clip.version)
        keyed.give("alices", "alice", small_clip.version)
        # An error that lists the names in service may list a new one from one request to the next.
        until(lambda: {"alices", "bobs"} <= keyed.served())
        own = {
            "job_id": [ended, queued, keyed.job("alice")],
            "dataset_id": [keyed.dataset("alice"), keyed.dataset("alice", "winoground")],
            "version": [version],
            "alias": ["alices"],
        }
        unknown = {"job_id": "job_0", "dataset_id": "ds_0", "version": "0" * 64, "alias": "nobodys"}
        yield Alices(keyed, own, unknown)


BODIES = {
    ("POST", "/models/{version}/promote"): {"alias": "bobs", "reason": "better"},
    ("POST", "/models/{alias}/rollback"): {"reason": "worse"},
    ("POST", "/models/{alias}/remove"): {"reason": "over"},
}


def told(answer: Response, record_id: str) -> tuple[int, dict[str, str], str]:
    """An answer without the id that the caller itself has sent."""
    headers = {name: answer.headers[name] for name in SHOWN if name in answer.headers}
    return answer.status_code, headers, answer.text.replace(record_id, "ID").replace(record_id[:12], "ID")


def test_every_route_answers_for_another_keys_record_as_for_an_unknown_one(alices: Alices) -> None:
    keyed, looked_at = alices.keyed, []
    for path, methods, scopes in auth.declared(cast(FastAPI, keyed.service.client.app)):
        path = re.sub(r"{(index|n)}", "0", path)
        for name in re.findall(r"{(\w+)}", path) if scopes else ():
            for method in sorted(methods - {"HEAD"}):
                for accept in ("*/*", "text/event-stream"):
                    for record_id in alices.own[name]:  # a new sort of record needs one here
                        request = {"json": BODIES.get((method, path)), "headers": {"Accept": accept}}
                        unknown_id = alices.unknown[name]
                        unknown = keyed.ask("bob", method, path.replace(f"{{{name}}}", unknown_id), **request)
                        foreign = keyed.ask("bob", method, path.replace(f"{{{name}}}", record_id), **request)
                        assert told(foreign, record_id) == told(unknown, unknown_id), (method, path)
                        assert foreign.status_code in (403, 404), (method, path)
                looked_at.append((method, path))
    assert len(looked_at) >= 18
    assert all(key in looked_at for key in BODIES)


@pytest.mark.parametrize("path", ["/jobs", "/datasets", "/models"])
def test_a_page_after_another_keys_record_is_one_after_an_unknown_one(alices: Alices, path: str) -> None:
    name = {"/jobs": "job_id", "/datasets": "dataset_id", "/models": "version"}[path]
    for record_id in alices.own[name]:
        foreign, unknown = (
            alices.keyed.ask("bob", "GET", path, params={"after": after})
            for after in (record_id, alices.unknown[name])
        )
        assert told(foreign, record_id) == told(unknown, alices.unknown[name])
        assert foreign.status_code == 404


def _finetune(keyed: Keyed, **fields: Any) -> dict[str, Any]:
    return keyed.service.request(owner="bob", **fields)


def _evaluate(keyed: Keyed, **fields: Any) -> dict[str, Any]:
    body = {"model": "demo", "benchmark": "winoground", "data": keyed.dataset("bob", "winoground")}
    return body | fields


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("path", "name", "index", "body"),
    [
        ("/finetune", "dataset_id", 0, lambda keyed, id: _finetune(keyed, training_data=id)),
        ("/finetune", "dataset_id", 0, lambda keyed, id: _finetune(keyed, validation_data=id)),
        (
            "/finetune",
            "dataset_id",
            1,
            lambda keyed, id: _finetune(keyed, evaluate=[{"benchmark": "winoground", "data": id}]),
        ),
        ("/finetune", "version", 0, lambda keyed, id: _finetune(keyed, base=id)),
        ("/evaluate", "dataset_id", 1, lambda keyed, id: _evaluate(keyed, data=id)),
        ("/evaluate", "version", 0, lambda keyed, id: _evaluate(keyed, model=id)),
        ("/evaluate", "version", 0, lambda keyed, id: _evaluate(keyed, baseline=id)),
    ],
)
def test_a_job_cannot_name_another_keys_record(
    alices: Alices,
    path: str,
    name: str,
    index: int,
    body: Callable[[Keyed, str], dict[str, Any]],
    dry_run: bool,
) -> None:
    keyed, record_id, unknown_id = alices.keyed, alices.own[name][index], alices.unknown[name]
    foreign, unknown = (
        keyed.ask("bob", "POST", path, json={**body(keyed, id), "dry_run": dry_run})
        for id in (record_id, unknown_id)
    )

    assert told(foreign, record_id) == told(unknown, unknown_id)
    assert error_of(foreign, 422)["code"] == "unusable_record"


@pytest.mark.parametrize("path", ["/match", "/classify", "/embed"])
def test_another_keys_version_answers_no_images(alices: Alices, path: str) -> None:
    keyed, version, unknown_id = alices.keyed, alices.own["version"][0], alices.unknown["version"]
    body = {"images": MATCH["images"]}
    body |= {"/match": {"texts": ["a"]}, "/classify": {"labels": ["a"]}, "/embed": {}}[path]

    assert keyed.ask("alice", "POST", path, json={**body, "model": version}).status_code == 200
    assert keyed.ask("root", "POST", path, json={**body, "model": version}).status_code == 200
    foreign, unknown = (
        keyed.ask("bob", "POST", path, json={**body, "model": id}) for id in (version, unknown_id)
    )
    assert told(foreign, version) == told(unknown, unknown_id)
    assert error_of(foreign, 404)["code"] == "unknown_model"


def test_beginning_of_another_keys_version_is_as_unknown_as_any(alices: Alices) -> None:
    keyed, version = alices.keyed, alices.own["version"][0]
    asks: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", "/models/{}", {}),
        ("GET", "/models/{}/download", {}),
        ("POST", "/models/{}/promote", {"json": {"alias": "bobs", "reason": "mine"}}),
        ("DELETE", "/models/{}", {}),
        ("GET", "/models?base={}", {}),
        ("POST", "/match", {"json": {**MATCH, "model": "{}"}}),
        ("POST", "/finetune", {"json": {**_finetune(keyed, base="{}"), "dry_run": True}}),
    ]

    def ask(key: str, prefix: str, method: str, path: str, request: dict[str, Any]) -> Response:
        filled = json.loads(json.dumps(request).replace('"{}"', f'"{prefix}"'))
        return keyed.ask(key, method, path.format(prefix), **filled)

    assert ask("alice", version[:8], *asks[0]).json()["id"] == version
    assert ask("alice", version[:8], *asks[-2]).status_code == 200
    for one in asks:
        foreign, unknown = ask("bob", version[:8], *one), ask("bob", "0" * 8, *one)
        assert told(foreign, version[:8]) == told(unknown, "0" * 8), one
        assert foreign.status_code in (404, 422)


@pytest.mark.parametrize(("path", "name"), [("/jobs", "job_id"), ("/datasets", "dataset_id")])
def test_lists_hold_a_keys_own_records_and_all_for_an_administrator(
    alices: Alices, path: str, name: str
) -> None:
    keyed, bobs = alices.keyed, alices.keyed.job("bob") if path == "/jobs" else alices.keyed.dataset("bob")

    def ids(key: str, **params: str) -> set[str]:
        listed = keyed.ask(key, "GET", path, params={"limit": 100, **params}).json()["data"]
        return {each["id"] for each in listed}

    assert ids("alice") >= set(alices.own[name])
    assert bobs in ids("bob")
    assert ids("bob").isdisjoint(ids("alice"))
    assert ids("alice", owner="bob") == set()
    assert ids("root") >= ids("alice") | ids("bob")
    assert ids("root", owner="bob") == ids("bob")


def test_key_sees_the_audit_of_the_aliases_that_were_given_to_it(alices: Alices) -> None:
    seen = {
        key: {line["alias"] for line in alices.keyed.ask(key, "GET", "/promotions").json()["data"]}
        for key in (*USERS, "root")
    }
    assert seen == {"alice": {"alices"}, "bob": {"bobs"}, "root": {"alices", "bobs", "default"}}


def test_administrator_uses_and_changes_what_others_made(keyed: Keyed) -> None:
    dataset, version = keyed.dataset("alice"), keyed.version("alice")
    job = keyed.job("alice")

    assert keyed.ask("root", "POST", f"/jobs/{job}/cancel").json()["status"] == "cancelled"
    body = keyed.service.request(training_data=dataset, base=version)
    own = keyed.ask("root", "POST", "/finetune", json=body).json()["id"]
    in_use = error_of(keyed.ask("alice", "DELETE", f"/datasets/{dataset}"), 409)
    assert own not in in_use["message"]
    keyed.ask("root", "POST", f"/jobs/{own}/cancel")
    assert keyed.ask("root", "DELETE", f"/models/{version}").status_code == 200
    assert keyed.ask("root", "DELETE", f"/datasets/{dataset}").status_code == 200


def test_what_a_deleted_key_made_is_left_to_the_administrator(alices: Alices) -> None:
    keyed = alices.keyed
    left = keyed.service.store.datasets.add(name="left", format="pairs", source={}, owner="gone").id

    for owner in USERS:
        assert keyed.ask(owner, "GET", f"/datasets/{left}").status_code == 404
    assert keyed.ask("root", "GET", f"/datasets/{left}").status_code == 200


def test_version_that_an_alias_points_to_is_for_all_and_deleted_by_none_of_them(
    keyed: Keyed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.seen_versions.LOOK_UP_EVERY_S", 0.0)
    version, later = keyed.version("alice"), keyed.version("alice", seed=1)
    named = {**MATCH, "model": version}
    keyed.give("live", "", version)

    assert keyed.ask("bob", "POST", "/match", json=named).status_code == 200
    shown = keyed.ask("bob", "GET", "/models/live").json()
    assert (shown["id"], shown["aliases"]) == (version, ["live"])
    assert (shown["owner"], shown["job_id"], shown["promotions"]) == ("", None, [])
    assert keyed.ask("bob", "GET", f"/models/{version}/download").status_code == 200
    body = _finetune(keyed, base="live", dry_run=True)
    assert keyed.ask("bob", "POST", "/finetune", json=body).status_code == 200
    error_of(keyed.ask("bob", "DELETE", f"/models/{version}"), 403)

    keyed.give("live", "", later)
    until(lambda: keyed.ask("bob", "POST", "/match", json=named).status_code == 404)
    listed = keyed.ask("bob", "GET", "/models").json()
    assert version not in str(listed)
    assert {each["id"] for each in listed["versions"]} == {keyed.clip.version, later}
    assert keyed.ask("alice", "POST", "/match", json=named).status_code == 200


def test_lineage_ends_at_the_first_version_that_is_another_keys(keyed: Keyed) -> None:
    first = keyed.version("alice")
    store = keyed.service.store
    for number, base in (("1", first), ("2", "1" * 64)):
        keyed.job("alice")
        _, lease = keyed.service.claim()
        store.leases.succeed(lease, version=NewVersion(number * 64, "f", {}, 1, base_version=base))
    store.aliases.promote(Move("live", "test", "test", None), "2" * 64)

    lineage = {
        key: keyed.ask(key, "GET", f"/models/{'2' * 64}").json()["lineage"] for key in ("bob", "alice")
    }
    assert lineage == {"bob": ["1" * 64], "alice": ["1" * 64, first, keyed.clip.version]}


def test_key_promotes_its_own_versions_to_the_alias_that_it_was_given(keyed: Keyed) -> None:
    version, bobs = keyed.version("alice"), keyed.version("bob", seed=1)
    promote = {"alias": "live", "reason": "better"}
    error_of(keyed.ask("alice", "POST", f"/models/{version}/promote", json=promote), 403)
    given = {**promote, "owner": "alice"}
    error_of(keyed.ask("alice", "POST", f"/models/{version}/promote", json=given), 403)
    keyed.give("live", "alice", keyed.clip.version)

    moved = keyed.ask("alice", "POST", f"/models/{version}/promote", json=promote).json()
    assert (moved["version"], moved["owner"]) == (version, "alice")
    assert keyed.ask("alice", "GET", f"/models/{version}").json()["promotions"][0]["who"] == "alice"
    error_of(keyed.ask("bob", "POST", f"/models/{bobs}/promote", json=promote), 403)
    error_of(keyed.ask("bob", "POST", "/models/live/rollback", json={"reason": "worse"}), 403)
    error_of(keyed.ask("alice", "POST", f"/models/{keyed.clip.version}/promote", json=promote), 403)
    error_of(keyed.ask("alice", "POST", f"/models/{bobs}/promote", json=promote), 404)
    back = keyed.ask("alice", "POST", "/models/live/rollback", json={"reason": "worse"}).json()
    assert back["version"] == keyed.clip.version
    error_of(keyed.ask("bob", "POST", "/models/live/remove", json={"reason": "over"}), 403)
    gone = keyed.ask("alice", "POST", "/models/live/remove", json={"reason": "over"}).json()
    assert gone["removed_at"] is not None
    error_of(keyed.ask("alice", "POST", f"/models/{version}/promote", json=promote), 403)


@pytest.mark.parametrize("dry_run", [False, True])
def test_key_without_admin_is_not_told_which_keys_there_are(alices: Alices, dry_run: bool) -> None:
    keyed, version = alices.keyed, alices.own["version"][0]
    answers = []
    for owner in ("bob", "nobody"):
        body = {"alias": "live", "reason": "mine", "owner": owner, "dry_run": dry_run}
        answer = keyed.ask("alice", "POST", f"/models/{version}/promote", json=body)
        answers.append((answer.status_code, answer.json()))
    assert answers[0] == answers[1]
    error = answers[0][1]["error"]
    assert (error["code"], error["param"]) == ("missing_scope", "owner")


def test_job_of_a_key_promotes_only_to_the_alias_that_it_was_given(keyed: Keyed) -> None:
    keyed.give("live", "alice", keyed.clip.version)
    refused = keyed.ask("bob", "POST", "/finetune", json=_finetune(keyed, promote="always", alias="live"))
    error = error_of(refused, 403)
    assert (error["code"], error["param"]) == ("missing_scope", "promote")

    job = keyed.job("alice", promote="always", alias="live")
    assert not keyed.service.store.jobs.get(job).by_admin
    keyed.ask("alice", "POST", f"/jobs/{job}/cancel")
    assert keyed.ask("alice", "POST", f"/jobs/{job}/retry").json()["status"] == "queued"
    keyed.ask("alice", "POST", f"/jobs/{job}/cancel")
    keyed.give("live", "bob", keyed.clip.version)
    error_of(keyed.ask("alice", "POST", f"/jobs/{job}/retry"), 403)


def test_estimate_is_based_on_a_keys_own_jobs(keyed: Keyed) -> None:
    dataset = {owner: keyed.dataset(owner) for owner in USERS}
    job = keyed.job("alice", training_data=dataset["alice"])
    _, lease = keyed.service.claim()
    keyed.service.store.leases.succeed(lease, result={"steps": 10})

    based_on = {}
    for owner in USERS:
        body = keyed.service.request(training_data=dataset[owner], dry_run=True)
        based_on[owner] = keyed.ask(owner, "POST", "/finetune", json=body).json()["estimate"]["based_on"]
    assert based_on == {"alice": job, "bob": None}


def test_a_setting_makes_one_workspace_of_all_keys(make_keyed: Callable[..., Keyed]) -> None:
    keyed = make_keyed(shared_workspace=True)
    dataset, version = keyed.dataset("alice"), keyed.version("alice")
    job = keyed.job("alice", training_data=dataset)

    assert keyed.ask("bob", "GET", f"/datasets/{dataset}").status_code == 200
    assert keyed.ask("bob", "GET", f"/models/{version}").json()["owner"] == "alice"
    assert keyed.ask("bob", "POST", "/match", json={**MATCH, "model": version}).status_code == 200
    assert keyed.ask("bob", "POST", f"/jobs/{job}/cancel").json()["status"] == "cancelled"
    error_of(keyed.ask("bob", "DELETE", f"/models/{version}"), 403)
    promote = {"alias": "live", "reason": "better"}
    error_of(keyed.ask("bob", "POST", f"/models/{version}/promote", json=promote), 403)
