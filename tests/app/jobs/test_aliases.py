"""What is done to aliases over HTTP, on weights that are really served: promotions, rollbacks and locks."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.app.jobs.conftest import Quick, error_of
from tests.databases import on_both
from tests.worker.waiting import until

REASON = {"reason": "it is better"}


@on_both
def test_promoted_version_answers_and_a_rollback_brings_back_the_one_before(quick: Quick) -> None:
    version = quick.publish()
    assert quick.served() == quick.base

    promoted = quick.promote(version, alias="default")
    assert promoted.status_code == 200
    assert (promoted.json()["version"], promoted.json()["generation"]) == (version, 2)
    assert promoted.json()["previous"] == quick.base
    until(lambda: quick.served() == version)

    back = quick.client.post("/models/default/rollback", json={"reason": "worse after all"})
    assert (back.json()["version"], back.json()["generation"]) == (quick.base, 3)
    assert back.json()["previous"] is None
    until(lambda: quick.served() == quick.base)
    audit = quick.store.aliases.promotions("default")
    assert [(line.who, line.why, line.to_version) for line in audit] == [
        ("local", "worse after all", quick.base),
        ("local", "it is better", version),
        ("sds-clip serve", "The first model that the service was started with.", quick.base),
    ]


@on_both
def test_promotions_at_the_same_time_that_expect_nothing_all_succeed(quick: Quick) -> None:
    """Also those that find no alias, and that another one has created it when they do so."""
    tuned = [quick.publish(seed=seed) for seed in range(2)]

    def promote(number: int) -> Any:
        return quick.promote(tuned[number % 2], alias="new", reason=f"number {number}")

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(promote, range(60)))

    assert {answer.status_code for answer in answers} == {200}
    moves = quick.store.aliases.promotions("new", limit=100)
    assert [move.generation for move in reversed(moves)] == list(range(1, len(moves) + 1))
    assert quick.store.aliases.get("new").generation == len(moves) > 0


@on_both
def test_promotion_that_waits_says_which_process_serves_it(quick: Quick) -> None:
    version = quick.publish()

    moved = quick.promote(version, wait_s=60).json()
    assert quick.served() == version
    assert moved["served_by_all"] is True
    (process,) = moved["processes"]
    assert (process["state"], process["version"], process["generation"]) == ("serving", version, 2)
    again = quick.promote(version, wait_s=60).json()
    assert (again["generation"], again["served_by_all"]) == (2, True)
    back = quick.client.post("/models/default/rollback", json=REASON).json()
    assert (back["served_by_all"], back["processes"]) == (None, None)


def test_wait_claims_nothing_if_the_reports_of_other_processes_cannot_be_read(quick: Quick) -> None:
    (quick.settings.data_dir / "serving" / "unreadable.json").mkdir(parents=True)

    moved = quick.promote(quick.base, wait_s=0.3)

    assert (moved.status_code, moved.json()["served_by_all"], moved.json()["processes"]) == (200, False, None)


@on_both
def test_removed_alias_answers_no_more_and_its_version_can_be_deleted(quick: Quick) -> None:
    version = quick.publish()
    assert quick.promote(version, alias="canary", wait_s=60).json()["served_by_all"] is True
    assert error_of(quick.client.delete(f"/models/{version}"), 409)["code"] == "in_use"

    for reason in ("the trial is over", "again"):
        gone = quick.client.post("/models/canary/remove", json={"reason": reason})
        assert (gone.status_code, gone.json()["version"], gone.json()["generation"]) == (200, version, 2)
        assert gone.json()["removed_at"] is not None
    until(lambda: quick.match(model="canary").status_code == 404)
    error = error_of(quick.match(model="canary"), 404)
    assert (error["code"], error["param"]) == ("unknown_model", "model")
    assert "choose one of: default, small." in error["message"]
    listed = quick.client.get("/models").json()
    assert [alias["name"] for alias in listed["aliases"]] == ["default"]
    assert error_of(quick.client.get("/models/canary"), 404)["code"] == "version_not_found"
    (process,) = quick.client.get("/models/status").json()["processes"]
    assert "canary" not in {model["name"] for model in process["models"]}
    lines = quick.client.get("/promotions", params={"alias": "canary"}).json()["data"]
    assert [(line["action"], line["why"]) for line in lines] == [
        ("remove", "the trial is over"),
        ("promote", "it is better"),
    ]
    assert quick.client.delete(f"/models/{version}").status_code == 200


def test_lock_and_its_end_are_shown_with_who_and_why(quick: Quick) -> None:
    version = quick.publish()

    def alias() -> Any:
        return quick.client.get("/models").json()["aliases"][0]

    assert alias()["lock"] is None
    locked = quick.client.post("/models/default/lock", json={"reason": "release freeze"})
    assert locked.json() == alias()
    assert (alias()["lock"]["who"], alias()["lock"]["why"]) == ("local", "release freeze")
    refused = quick.promote(version)
    assert "release freeze" in error_of(refused, 409)["message"]

    assert quick.client.post("/models/default/unlock", json={"reason": "released"}).json()["lock"] is None
    assert quick.promote(version).status_code == 200
    quick.promote(quick.base)
    lines = quick.client.get("/models/default").json()["promotions"]
    assert [(line["action"], line["why"]) for line in lines] == [
        ("promote", "it is better"),
        ("unlock", "released"),
        ("lock", "release freeze"),
        ("promote", "The first model that the service was started with."),
    ]


def test_version_that_only_a_lock_kept_back_needs_no_force_later(quick: Quick) -> None:
    verdict = {"alias": "default", "promoted": False, "locked": True, "why": "It is better, but locked."}
    version = quick.publish(result={"promotion": verdict})

    assert quick.promote(version).status_code == 200
