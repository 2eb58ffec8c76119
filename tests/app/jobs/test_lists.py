"""Filters of the lists of jobs, data sets and versions, page by page."""

from typing import Any

from sds_clip.app.store.records import Move, NewVersion
from tests.app.jobs.conftest import Service, error_of
from tests.app.store.conftest import claimed
from tests.databases import on_both


def pages(service: Service, path: str, key: str = "data", **params: Any) -> list[dict[str, Any]]:
    """All items of a list, in pages of two."""
    found: list[dict[str, Any]] = []
    while True:
        after = {"after": found[-1]["id"]} if found else {}
        answer = service.client.get(path, params={"limit": 2, **params, **after}).json()
        found += answer[key]
        if not answer["has_more"]:
            return found


@on_both
def test_data_sets_are_found_by_name_format_and_time(service: Service) -> None:
    for name in ("coco-1", "coco-2", "Coco-3", "coco-4", "other"):
        service.ready_dataset("winoground" if name == "coco-2" else "pairs", name=name)

    def names(**params: Any) -> list[str]:
        return [each["name"] for each in pages(service, "/datasets", **params)]

    assert names() == ["other", "coco-4", "Coco-3", "coco-2", "coco-1"]
    assert names(name="coco-") == ["coco-4", "coco-2", "coco-1"]
    assert names(name="coco-", format="pairs") == ["coco-4", "coco-1"]
    assert names(name="coco_") == names(name="%") == []
    second = service.client.get("/datasets/coco-2").json()["created_at"]
    assert names(created_before=second) == ["coco-1"]
    assert names(created_after=second) == ["other", "coco-4", "Coco-3"]
    assert names(created_after=second, name="coco", status="ready") == ["coco-4"]


@on_both
def test_jobs_are_found_by_name_kind_and_time(service: Service) -> None:
    data = service.ready_dataset()
    for name in ("sweep-1", "sweep-2", "sweep-3", None):
        service.finetune(training_data=data, **({} if name is None else {"name": name}))
    service.client.post("/jobs/sweep-2/cancel")

    def names(**params: Any) -> list[str]:
        return [each["name"] for each in pages(service, "/jobs", **params)]

    assert names(name="sweep") == ["sweep-3", "sweep-2", "sweep-1"]
    assert names(name="sweep", status="cancelled", kind="finetune") == ["sweep-2"]
    assert names(kind="evaluate") == []
    second = service.client.get("/jobs/sweep-2").json()["created_at"]
    assert (names(created_before=second), names(created_after=second)) == (["sweep-1"], ["", "sweep-3"])


@on_both
def test_versions_are_found_by_id_alias_status_and_time(service: Service) -> None:
    for letter in "abc":
        service.store.versions.register(NewVersion(letter * 64, letter, {}, 1))
    service.store.aliases.promote(Move("better", "me", "it is", None), "b" * 64)
    service.store.versions.delete("c" * 64)

    def ids(**params: Any) -> set[str]:
        found = pages(service, "/models", "versions", **params)
        return {each["id"][0] for each in found if set(each["id"]) <= set("abc")}

    assert ids() == {"a", "b"}
    assert ids(name="aa") == {"a"}
    assert ids(name="bett") == {"b"}
    assert ids(status="deleted") == {"c"}
    assert ids(created_before=1) == ids(created_after=2**40) == set()


@on_both
def test_versions_are_found_by_what_their_job_notes(service: Service) -> None:
    data = service.ready_dataset()
    notes_of = {"a": {"customer": "acme", "a.b c": "1"}, "b": {"customer": "other", "größe": "ü"}, "c": {}}
    for letter, notes in notes_of.items():
        service.finetune(training_data=data, metadata=notes)
        service.store.leases.succeed(claimed(service.store), version=NewVersion(letter * 64, letter, {}, 1))

    def ids(*metadata: str) -> set[str]:
        return {each["id"][0] for each in pages(service, "/models", "versions", metadata=metadata)}

    assert ids("customer:acme") == ids("a.b c:1") == ids("customer:acme", "a.b c:1") == {"a"}
    assert (
        ids("customer:other", "a.b c:1")
        == ids("customer:ac")
        == ids("customer:")
        == ids("none:acme")
        == set()
    )
    assert ids("größe:ü") == {"b"}
    for wrong in (["customer"], [":acme"], ['a"b:c'], ["a\\:c"], ["a\x01:c"], ["a:b", "a:c"]):
        answer = service.client.get("/models", params={"metadata": wrong})
        assert error_of(answer, 422)["param"] == "metadata"
