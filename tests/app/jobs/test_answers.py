"""What each route answers about a record in each state: one table, on both databases.

The rules are tested where they are kept, most of them at the store. Here stand the status and the code that a caller
gets, and that a request which is refused or repeated changes nothing.
"""

import re
from collections.abc import Iterator
from itertools import product
from typing import Any, cast

import pytest
from fastapi import FastAPI

from sds_clip.app.edge import auth
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store.records import JobError, NewVersion
from sds_clip.app.store.states import JobStatus
from sds_clip.models.clip.model import Clip
from tests.app.datasets.archives import tree
from tests.app.jobs.conftest import Service, error_of, running
from tests.checks import claimed_check
from tests.databases import KINDS, Databases

WHY = {"reason": "a reason"}
TAKEN = "0123abcd"
"""Two versions begin so."""
LIVES = {
    "succeeded": "claim succeed",
    "failed": "claim fail",
    "robbed": "claim fail",
    "running": "claim",
    "pausing": "claim pause",
    "cancelling": "claim cancel",
    "retried": "claim fail retry",
    "paused": "pause",
    "cancelled": "cancel",
    "resumed": "pause resume",
    "validating": "",
    "queued": "",
}
"""What a worker and the routes have done to each job. Those that are claimed come first."""


class States:
    """A service with a record in each state."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.ids: dict[str, str] = {}

    def ask(self, route: str, body: Any = None, **request: Any) -> Any:
        """The answer to a route such as `POST /jobs/{queued}/pause`. A body may name a record by its state too."""
        method, path = route.format(**self.ids).split(" ")
        if isinstance(body, dict):
            body = {name: self.ids.get(str(value), value) for name, value in body.items()}
        return self.service.client.request(method, path, json=body, **request)

    def everything(self) -> Any:
        """All records, and the files."""
        get = self.service.client.get
        lists = [get(f"{path}?limit=100").json() for path in ("/jobs", "/datasets", "/promotions", "/models")]
        del lists[-1]["models"]  # which of them a process has loaded may change at any time
        return lists, [
            tree(self.service.settings.data_dir / name) for name in ("jobs", "datasets", "versions")
        ]


def each_state(route: str) -> list[str]:
    """`/jobs/{paused|failed}` for each of its states."""
    states = re.search(r"{(\S+\|\S+)}", route)
    return [route.replace(states[1], state) for state in states[1].split("|")] if states else [route]


@pytest.fixture(scope="module", params=KINDS)
def states(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_clip: Clip
) -> Iterator[States]:
    databases: Databases = request.getfixturevalue(f"{request.param}_databases")
    url = databases.url(databases.migrated())
    with running(small_clip, data_dir=tmp_path_factory.mktemp("states"), database_url=url) as service:
        states = States(service)
        make_data_sets(states)
        make_versions(states, small_clip)
        make_jobs(states)
        make_aliases(states)
        yield states


def make_data_sets(states: States) -> None:
    service, add = states.service, states.service.store.datasets.add
    for name, format in (("ready", "pairs"), ("wino", "winoground"), ("input", "pairs"), ("gone", "pairs")):
        states.ids[name] = service.ready_dataset(format, name=name)
    states.ask("DELETE /datasets/{gone}")
    states.ids["rejected"] = add(name="rejected", format="pairs", source={}).id
    check = claimed_check(service.store)
    service.store.datasets.reject(check, problems=[{"code": "image_unreadable", "message": "a.jpg"}])
    states.ids["unchecked"] = add(name="unchecked", format="pairs", source={}).id
    [check] = service.store.datasets.enlist_checks(FORMATS)
    states.ids["check"] = check.id


def make_versions(states: States, clip: Clip) -> None:
    ids = {"base": TAKEN + "0" * 56, "delta": TAKEN + "1" * 56, "needed": "e" * 64, "deleted": "d" * 64}
    for name, version in ids.items():
        base = ids["base"] if name == "delta" else None
        row = NewVersion(version, None, {"reference": "demo"}, 1, base_version=base)
        states.service.store.versions.register(row)
    states.ids |= {**ids, "served": clip.version, "worse": "b" * 64}
    states.ask("DELETE /models/{deleted}")


def make_jobs(states: States) -> None:
    service, leases = states.service, states.service.store.leases
    worse = {"alias": "default", "promoted": False, "why": "group score 0.5 -> 0.4."}
    for name, life in LIVES.items():
        training = {"robbed": "input", "validating": "unchecked"}.get(name, "ready")
        body = service.request(name=f"{name}-job", training_data=training, base=states.ids["needed"])
        answer = service.client.post("/finetune", json=body, headers={"Idempotency-Key": name})
        states.ids[name] = str(answer.json()["id"])
        for step in life.split():
            if step == "claim":
                _, lease = service.claim()
            elif step == "succeed":
                made = NewVersion(states.ids["worse"], None, {"reference": "demo"}, 1)
                leases.succeed(lease, version=made, result={"promotion": worse})
            elif step == "fail":
                leases.fail(lease, JobError("diverged", "The loss is not finite."))
            else:
                assert states.ask(f"POST /jobs/{{{name}}}/{step}").status_code == 200
    states.ask("DELETE /datasets/{input}")
    checkpoint = service.settings.data_dir / "jobs" / states.ids["queued"] / "1" / "checkpoint"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()


def make_aliases(states: States) -> None:
    for alias in ("live", "locked", "removed"):
        states.ask("POST /models/{served}/promote", {"alias": alias, **WHY})
    states.ask("POST /models/locked/lock", WHY)
    states.ask("POST /models/removed/remove", WHY)


@pytest.mark.parametrize("state", JobStatus)
def test_routes_and_workers_bring_a_job_into_each_state(states: States, state: str) -> None:
    assert states.ask(f"GET /jobs/{{{state}}}").json()["status"] == state


def test_resumed_and_retried_jobs_are_queued_without_their_error(states: States) -> None:
    for name in ("resumed", "retried"):
        job = states.ask(f"GET /jobs/{{{name}}}").json()
        assert (job["status"], job["attempt"], job["error"]) == ("queued", 0, None)


def test_checks_are_listed_only_if_they_are_asked_for_and_name_their_data_set(states: States) -> None:
    every = states.ask("GET /jobs?limit=100").json()["data"]
    assert {job["kind"] for job in every} == {"finetune"}
    checks = {job["id"]: job for job in states.ask("GET /jobs?kind=check").json()["data"]}
    check = checks[states.ids["check"]]
    assert (check["dataset"], check["status"], check["no_worker"]) == (
        states.ids["unchecked"],
        "queued",
        True,
    )
    events = states.ask("GET /datasets/{rejected}/events").json()["data"]
    assert [event["data"]["to"] for event in events] == ["queued", "running", "succeeded"]
    assert states.ask("GET /datasets/{rejected}/events?after=1&limit=1").json()["has_more"]


SHOWN = [
    *(
        f"GET /jobs/{{queued|running|failed|succeeded}}/{each}"
        for each in ("events", "metrics", "curves", "checkpoints")
    ),
    "GET /datasets/{ready|unchecked|rejected|gone}",
    "GET /datasets/{ready|unchecked|rejected|gone}/events",
    "GET /jobs/{check}",
    "GET /models/{served|delta|worse|deleted}",
    "GET /models/live",
    "GET /promotions?alias=locked",
    "GET /workers",
]


def test_what_there_is_of_a_record_is_shown_in_each_state(states: States) -> None:
    for route in SHOWN:
        for each in each_state(route):
            assert states.ask(each).status_code == 200, each


REPEATED = [
    "POST /jobs/{cancelled|cancelling}/cancel",
    "POST /jobs/{paused|pausing}/pause",
    "POST /jobs/{queued|running}/resume",
    "POST /jobs/{queued|running|validating}/retry",
    "DELETE /datasets/{gone}",
    "DELETE /models/{deleted}",
    "POST /models/{served}/promote",
    "POST /models/locked/lock",
    "POST /models/live/unlock",
    "POST /models/removed/remove",
]


@pytest.mark.parametrize("route", REPEATED)
def test_what_is_done_already_is_no_error_and_changes_nothing(states: States, route: str) -> None:
    before = states.everything()

    for each in each_state(route):
        answer = states.ask(each, {"reason": "another reason"})
        assert answer.status_code == 200, answer.text

    assert states.everything() == before


FINETUNE = {"teacher": "demo", "training_data": "ready", "hyperparameters": {"steps": 10}}
EVALUATE = {"model": "demo", "benchmark": "winoground", "data": "wino"}
SHORT = f"/models/{TAKEN}"

REFUSED: dict[str, list[tuple[str, Any, int, str, str | None]]] = {
    "jobs": [
        ("POST /jobs/{succeeded|failed}/cancel", None, 409, "job_state", None),
        ("POST /jobs/{succeeded|failed|cancelled|cancelling|validating}/pause", None, 409, "job_state", None),
        ("POST /jobs/{succeeded|failed|cancelled|cancelling|pausing|validating}/resume", None, 409, "job_state", None),
        ("POST /jobs/{succeeded|paused|pausing|cancelling}/retry", None, 409, "job_state", None),
        ("POST /jobs/{robbed}/retry", None, 409, "inputs_gone", None),
        *((f"POST /jobs/{{check}}/{action}", None, 409, "job_state", None) for action in ("cancel", "pause", "retry")),
        ("DELETE /jobs/{check}", None, 409, "job_state", None),
        ("DELETE /jobs/{queued|running|paused|pausing|cancelling|validating}", None, 409, "job_state", None),
        ("GET /jobs/{queued|succeeded}/log", None, 404, "no_log", None),
        ("GET /jobs/{queued|succeeded}/report", None, 404, "no_report", None),
        ("GET /jobs/{queued|succeeded}/items", None, 404, "no_items", None),
        ("GET /jobs?after=job_none", None, 404, "job_not_found", "after"),
        ("GET /jobs/{queued}/events?after=-1", None, 422, "invalid_request", "after"),
        (f"GET /jobs/{{queued}}/events?after={2**70}", None, 422, "invalid_request", "after"),
        ("GET /jobs/{queued}/curves?points=3", None, 422, "invalid_request", "points"),
        (f"GET /jobs/{{queued}}/curves?points={10**6}", None, 422, "invalid_request", "points"),
        ("GET /jobs/{queued}/curves?from_step=-1", None, 422, "invalid_request", "from_step"),
    ],
    "lists": [
        *(
            (f"GET {path}?{name}={value}", None, 422, "invalid_request", name)
            for path in ("/jobs", "/datasets", "/models")
            for name, values in {
                "limit": (0, 101, "x"), "created_after": ("soon", "nan", "inf"), "after": ("a" * 129,),
                "status": ("x",),
            }.items()
            for value in values
        ),
        ("GET /jobs?kind=train", None, 422, "invalid_request", "kind"),
    ],
    "data sets": [
        ("DELETE /datasets/{ready|unchecked}", None, 409, "in_use", "dataset"),
        ("GET /datasets/{ready|rejected|unchecked}/samples", None, 404, "no_samples", None),
        ("GET /datasets/{ready}/samples/0/images/0", None, 404, "no_samples", None),
        ("GET /datasets?after=ds_none", None, 404, "dataset_not_found", "after"),
    ],
    "versions": [
        ("DELETE /models/{served|needed|base}", None, 409, "in_use", "version"),
        ("GET /models/{served|worse}/download", None, 404, "version_not_published", "version"),
        ("GET /models/{served|worse}/log", None, 404, "no_log", None),
        (f"GET /models?after={'0' * 64}", None, 404, "version_not_found", "after"),
        ("GET /models?base=00000000", None, 404, "unknown_model", "base"),
        *(
            (route, WHY, 409, "ambiguous_name", None)
            for route in (
                f"GET {SHORT}", f"GET {SHORT}/log", f"GET {SHORT}/download", f"DELETE {SHORT}", f"POST {SHORT}/promote",
            )
        ),
        (f"POST {SHORT}/promote", {"dry_run": True, **WHY}, 409, "ambiguous_name", None),
        (f"GET /models?base={TAKEN}", None, 409, "ambiguous_name", "base"),
    ],
    "aliases": [
        ("POST /models/{deleted}/promote", WHY, 422, "unusable_record", "version"),
        ("POST /models/{worse}/promote", WHY, 409, "not_better", "force"),
        ("POST /models/{needed}/promote", {"expected_generation": 7, **WHY}, 409, "alias_moved", None),
        ("POST /models/{needed}/promote", {"alias": "locked", "force": True, **WHY}, 409, "alias_locked", "alias"),
        ("POST /models/locked/rollback", WHY, 409, "alias_locked", "alias"),
        ("POST /models/locked/remove", WHY, 409, "alias_locked", "alias"),
        ("POST /models/default/rollback", WHY, 409, "nothing_to_roll_back", None),
        ("POST /models/default/rollback", {"expected_generation": 7, **WHY}, 409, "nothing_to_roll_back", None),
        ("POST /models/default/remove", WHY, 409, "in_use", "alias"),
        ("POST /models/live/remove", {"expected_generation": 7, **WHY}, 409, "alias_moved", None),
        ("POST /models/removed/rollback", WHY, 404, "alias_not_found", None),
        ("POST /models/removed/lock", WHY, 404, "alias_not_found", None),
        ("GET /models/removed", None, 404, "version_not_found", None),
        *(
            (f"POST /models/live/{action}", body, 422, "invalid_request", "reason")
            for action in ("rollback", "remove", "lock", "unlock")
            for body in ({}, {"reason": " \n"})
        ),
        *(
            ("POST /models/{served}/promote", {**WHY, **body}, 422, code, next(iter(body)))
            for body, code in (
                ({"reason": ""}, "invalid_request"), ({"reason": " \n"}, "invalid_request"),
                ({"reason": None}, "invalid_request"), ({"alias": "status"}, "invalid_alias"),
                ({"alias": "a" * 64}, "invalid_alias"), ({"alias": "../x"}, "invalid_request"),
                ({"expected_generation": 2**70}, "invalid_request"), ({"who": "root"}, "invalid_request"),
                ({"wait_s": -1}, "invalid_request"), ({"wait_s": 301}, "invalid_request"),
            )
        ),
    ],
    "submissions": [
        ("POST /finetune", {**FINETUNE, "training_data": "rejected"}, 422, "unusable_record", "training_data"),
        ("POST /finetune", {**FINETUNE, "training_data": "gone"}, 422, "unusable_record", "training_data"),
        ("POST /finetune", {**FINETUNE, "training_data": "wino"}, 422, "dataset_format", "training_data"),
        (
            "POST /finetune", {**FINETUNE, "evaluate": [{"benchmark": "sugarcrepe", "data": "wino"}]},
            422, "dataset_format", "evaluate[0]",
        ),
        ("POST /finetune", {**FINETUNE, "base": "deleted"}, 422, "unusable_record", "base"),
        ("POST /finetune", {**FINETUNE, "base": TAKEN}, 422, "unusable_record", "base"),
        ("POST /finetune", {**FINETUNE, "base": "0123abce"}, 422, "model_not_allowed", "base"),
        ("POST /finetune", {**FINETUNE, "name": "queued-job"}, 409, "name_taken", "name"),
        ("POST /evaluate", {**EVALUATE, "data": "ready"}, 422, "dataset_format", "data"),
        ("POST /evaluate", {**EVALUATE, "model": "deleted"}, 422, "unusable_record", "model"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("about", REFUSED)
def test_what_the_state_does_not_allow_is_refused_and_changes_nothing(states: States, about: str) -> None:
    before = states.everything()

    for route, body, status, code, param in REFUSED[about]:
        for each in each_state(route):
            answer = states.ask(each, body)
            assert answer.status_code == status, (each, body, answer.text)
            error = error_of(answer, status)
            place = f"{error['param']}[{error['index']}]" if "index" in error else error["param"]
            assert (error["code"], place) == (code, param), (each, body)

    assert states.everything() == before


@pytest.mark.parametrize(
    ("headers", "param"),
    [
        *(({"Idempotency-Key": key}, "Idempotency-Key") for key in ("queued", "", "a" * 256, "a b", "\t")),
        *(({"Last-Event-ID": last}, "Last-Event-ID") for last in ("x", "-1", "1.5", "9" * 19, "\u0661".encode())),
    ],
)  # fmt: skip
def test_header_that_is_wrong_or_of_another_request_is_refused(
    states: States, headers: dict[str, str], param: str
) -> None:
    stream = {"Accept": "text/event-stream", **headers}
    routes = (("POST /finetune", FINETUNE), ("POST /evaluate", EVALUATE))
    for route, body in routes if param == "Idempotency-Key" else (("GET /jobs/{succeeded}/events", None),):
        assert error_of(states.ask(route, body, headers=stream), 422)["param"] == param


UNKNOWN = {
    "job_id": ("job", ["job_none", "none"]),
    "dataset_id": ("dataset", ["ds_none", "none"]),
    "version": ("version", ["0" * 64, "0" * 8, "none"]),
    "alias": ("alias", ["none"]),
}


@pytest.mark.parametrize("accept", ["*/*", "text/event-stream"])
def test_every_route_says_what_it_does_not_know(states: States, accept: str) -> None:
    asked = set()
    for path, methods, _ in auth.declared(cast(FastAPI, states.service.client.app)):
        for name in UNKNOWN.keys() & re.findall(r"{(\w+)}", path):
            what, unknown = UNKNOWN[name]
            for method, each in product(methods - {"HEAD"}, unknown):
                address = re.sub(r"{(index|n)}", "0", path.replace(f"{{{name}}}", each))
                answer = states.ask(f"{method} {address}", WHY, headers={"Accept": accept})
                assert error_of(answer, 404)["code"] == f"{what}_not_found", (method, address)
                asked.add((method, path))
    assert len(asked) >= 25
