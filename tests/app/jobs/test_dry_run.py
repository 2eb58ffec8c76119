"""A dry run of a promotion: it moves nothing, and says what the real one then does."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from sds_clip.app.registry.gate import CandidateScores, Verdict, judge
from sds_clip.app.schemas.finetune import Thresholds
from sds_clip.app.store.states import JobKind
from sds_clip.app.store.tables import versions
from sds_clip.models.evaluation.results import Results, write_results
from sds_clip.worker.benchmarks import summary
from tests.app.jobs.conftest import Keyed, Quick, Service, error_of
from tests.app.registry.test_gate import retrieval, winoground
from tests.databases import on_both

REASON = {"reason": "it is better"}


def dry_run(service: Service, version: str, **body: Any) -> dict[str, Any]:
    before = aliases(service)
    answer = service.client.post(f"/models/{version}/promote", json={**REASON, **body, "dry_run": True})
    assert answer.status_code == 200, answer.text
    assert aliases(service) == before
    plan: dict[str, Any] = answer.json()
    return plan


def aliases(service: Service) -> Any:
    """Where the aliases are, and how they came there."""
    return service.store.aliases.all(), service.store.aliases.promotions()


def of_version(results: Results, version: str) -> Results:
    provenance = {"model_version": version, "data_hash": "a", "scorer": "clip", "precision": "float32"}
    return replace(results, provenance=provenance)


def evaluated(service: Service, version: str, other: str, results: Results, baseline: Results) -> str:
    """An evaluation job that has measured a version and another one."""
    data = service.ready_dataset(results.benchmark)
    body = {"model": version, "benchmark": results.benchmark, "data": data, "baseline": other}
    answer = service.client.post("/evaluate", json=body)
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["id"])
    _, lease = service.claim(JobKind.EVALUATE)
    own, others = of_version(results, version), of_version(baseline, other)
    files = {}
    for name, each in (("results", own), ("baseline", others)):
        file = service.settings.data_dir / "jobs" / job / "1" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_results(file, each)
        files[name] = file.relative_to(service.settings.data_dir).as_posix()
    row = {**summary(own), "baseline": summary(others), "files": files}
    service.store.leases.succeed(lease, result=row)
    return job


def verdict_of(version: str, other: str, right: int, retrieved: float) -> Verdict:
    """What a worker says that has measured both."""
    return judge(
        CandidateScores(other, {"w": winoground(4), "r": retrieval(0.5, 0.5)}),
        CandidateScores(version, {"w": winoground(right), "r": retrieval(retrieved, 0.5)}),
        Thresholds(),
    )


def damage(quick: Quick, version: str) -> None:
    next(quick.folder(version).glob("*.safetensors")).write_bytes(b"x")


@on_both
def test_promotion_that_nothing_refuses_is_foretold(quick: Quick) -> None:
    version = quick.publish()

    plan = dry_run(quick, version)

    assert (plan["name"], plan["from_version"], plan["to_version"]) == ("default", quick.base, version)
    assert (plan["from_generation"], plan["generation"], plan["moves"], plan["error"]) == (1, 2, True, None)
    moved = quick.promote(version).json()
    assert (moved["version"], moved["generation"]) == (plan["to_version"], plan["generation"])


@on_both
def test_new_alias_is_not_created(quick: Quick) -> None:
    plan = dry_run(quick, quick.base, alias="other")

    assert (plan["from_version"], plan["from_generation"], plan["generation"]) == (None, 0, 1)
    assert plan["moves"]


def test_alias_that_points_there_already_would_not_move(quick: Quick) -> None:
    plan = dry_run(quick, quick.base)

    assert (plan["moves"], plan["error"], plan["gate"]["verdict"]) == (False, None, "not_better")


@pytest.mark.parametrize("reason", ["alias_locked", "not_better", "alias_moved", "version_damaged"])
def test_refusal_is_foretold(quick: Quick, reason: str) -> None:
    worse = {"alias": "default", "promoted": False, "why": "It is worse."}
    result = {"promotion": worse} if reason == "not_better" else None
    version = quick.publish(result=result)
    body: dict[str, Any] = {"expected_generation": 7} if reason == "alias_moved" else {}
    if reason == "alias_locked":
        quick.client.post("/models/default/lock", json={"reason": "a freeze"})
    if reason == "version_damaged":
        damage(quick, version)

    plan = dry_run(quick, version, **body)

    real = error_of(quick.promote(version, **body), 409)
    assert real["code"] == reason
    assert {name: plan["error"][name] for name in real} == real
    assert (plan["moves"], plan["generation"]) == (False, 1)
    assert (plan["lock"] is not None) == (reason == "alias_locked")


def test_version_over_a_damaged_one_is_foretold_to_be_refused_and_is(quick: Quick) -> None:
    base, version = (quick.publish(seed=seed) for seed in (0, 1))
    with quick.store.database.writing() as connection:
        connection.execute(update(versions).where(versions.c.id == version).values(base_version=base))
    assert dry_run(quick, version)["error"] is None
    damage(quick, base)

    plan = dry_run(quick, version)

    real = error_of(quick.promote(version), 409)
    assert (real["code"], plan["moves"]) == ("version_damaged", False)
    assert plan["error"]["message"] == real["message"]
    assert base[:12] in real["message"]
    assert quick.store.versions.get(base).damaged_at is not None


@pytest.mark.parametrize(("right", "retrieved"), [(12, 0.5), (12, 0.3), (6, 0.5)])
def test_gate_judges_evaluations_as_a_worker_does(quick: Quick, right: int, retrieved: float) -> None:
    version, other = quick.publish(), quick.base
    jobs = [
        evaluated(quick, version, other, winoground(right), winoground(4)),
        evaluated(quick, version, other, retrieval(retrieved, 0.5), retrieval(0.5, 0.5)),
    ]

    gate = dry_run(quick, version)["gate"]

    expected = verdict_of(version, other, right, retrieved)
    assert gate["verdict"] == ("better" if expected.promotes else "not_better")
    assert gate["compared_with"] == other
    assert [(each["figure"], each["value"], each["limit"], each["passed"]) for each in gate["checks"]] == [
        (check.figure, check.value, check.limit, check.passed) for check in expected.checks
    ]
    assert set(gate["evidence"]) == set(jobs)
    named = gate["checks"][0]["on"]
    assert gate["why"].replace(named, "w").replace(gate["checks"][-1]["on"], "r") == expected.why


@pytest.mark.parametrize("right", [4, 12])
def test_comparison_by_the_job_that_made_the_version_is_shown(quick: Quick, right: int) -> None:
    expected = verdict_of("v", quick.base, right, 0.5)
    promotion = {"alias": "default", "promoted": expected.promotes, "why": expected.why, **expected.figures}
    version = quick.publish(result={"promotion": promotion})

    gate = dry_run(quick, version)["gate"]

    assert gate["verdict"] == ("better" if expected.promotes else "not_better")
    assert gate["why"] == expected.why
    assert [check["passed"] for check in gate["checks"]] == [check.passed for check in expected.checks]


def test_without_evaluations_of_both_the_gate_says_what_to_do(quick: Quick) -> None:
    version = quick.publish()
    evaluated(quick, version, "demo", winoground(12), winoground(4))

    gate = dry_run(quick, version)["gate"]

    assert (gate["verdict"], gate["checks"], gate["evidence"]) == ("unknown", [], [])
    assert (gate["figures"], gate["missing"]) == ([], ["winoground", "zero_shot_or_retrieval"])
    assert "POST /evaluate" in gate["why"]


def test_what_was_measured_of_both_is_shown_and_what_is_missing_is_named(quick: Quick) -> None:
    version, other = quick.publish(), quick.base
    job = evaluated(quick, version, other, retrieval(0.4, 0.5), retrieval(0.5, 0.6))

    gate = dry_run(quick, version)["gate"]

    assert (gate["verdict"], gate["checks"], gate["evidence"]) == ("unknown", [], [job])
    assert gate["missing"] == ["winoground"]
    assert f"No jobs have measured both the version and {other[:12]} on winoground, " in gate["why"]
    [figure] = gate["figures"]
    assert figure["on"].startswith("retrieval (ds_")
    assert (figure["figure"], figure["before"], figure["after"]) == (
        "score",
        pytest.approx(0.55),
        pytest.approx(0.45),
    )

    evaluated(quick, version, other, winoground(12), winoground(4))
    complete = dry_run(quick, version)["gate"]
    assert (complete["verdict"], complete["missing"]) == ("not_better", [])
    shown = {each["figure"]: (each["before"], each["after"]) for each in complete["figures"]}
    assert shown.keys() == {"group_match", "group_score", "score"}
    assert shown["group_match"][0] < shown["group_match"][1]


def test_files_of_an_evaluation_that_are_gone_are_named_without_their_path(quick: Quick) -> None:
    version = quick.publish()
    job = evaluated(quick, version, quick.base, winoground(12), winoground(4))
    (quick.settings.data_dir / "jobs" / job / "1" / "baseline.json").unlink()

    gate = dry_run(quick, version)["gate"]

    assert (gate["verdict"], str(quick.settings.data_dir) in gate["why"]) == ("unknown", False)


def test_key_is_told_whether_it_may(keyed: Keyed) -> None:
    version = keyed.version("alice")
    body = {**REASON, "alias": "hers", "dry_run": True}

    refused = keyed.ask("alice", "POST", f"/models/{version}/promote", json=body).json()
    keyed.give("hers", "alice", version)
    other = keyed.version("alice", seed=1)
    allowed = keyed.ask("alice", "POST", f"/models/{other}/promote", json=body).json()

    assert (refused["moves"], refused["error"]["code"]) == (False, "missing_scope")
    assert (allowed["moves"], allowed["error"]) == (True, None)
    hidden = keyed.version("bob", seed=2)
    error_of(keyed.ask("alice", "POST", f"/models/{hidden}/promote", json=body), 404)
