"""The list of what was done to aliases."""

from tests.app.jobs.conftest import Service
from tests.databases import on_both

REASON = {"reason": "a reason"}


@on_both
def test_audit_is_listed_newest_first_and_page_by_page(service: Service) -> None:
    for action in ("lock", "unlock", "lock"):
        service.client.post(f"/models/default/{action}", json=REASON)

    first = service.client.get("/promotions?limit=3").json()
    rest = service.client.get("/promotions", params={"limit": 3, "after": first["data"][-1]["id"]}).json()

    assert [line["action"] for line in first["data"] + rest["data"]] == ["lock", "unlock", "lock", "promote"]
    assert (first["has_more"], rest["has_more"]) == (True, False)
    assert (first["data"][0]["who"], first["data"][0]["why"]) == ("local", "a reason")


@on_both
def test_audit_of_one_alias(service: Service) -> None:
    version = service.store.aliases.get("default").version
    service.client.post(f"/models/{version}/promote", json={**REASON, "alias": "other"})

    found = service.client.get("/promotions?alias=other").json()["data"]

    assert [(line["alias"], line["to_version"], line["generation"]) for line in found] == [
        ("other", version, 1)
    ]
    assert service.client.get("/promotions?alias=none").json()["data"] == []
