"""The pages of versions in a real Chromium: promotion, lock and rollback of what a real service serves."""

import tarfile
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from sds_clip.app.keys import create_key
from sds_clip.app.store.records import Lease
from sds_clip.app.store.states import JobKind
from tests.app.serverside import RunningServer, running_server
from tests.browser.console import ATTACK, NEEDS_CONSOLE, Look, sign_in
from tests.browser.registry import Registry
from tests.checks import claimed_check

pytestmark = NEEDS_CONSOLE

SOON_MS = 20_000
"""Less than the time between two readings of a page that no stream tells anything."""
METRIC = {"value": 0.625, "low": 0.577, "high": 0.671, "n": 400, "chance": 0.5}
EVALUATIONS = {f"winoground ({ATTACK})": {"metrics": {"group_match": METRIC}}}


@pytest.fixture
def base(models: list[str]) -> str:
    return models[0]


def serving(folder: Path, base: str, **settings: str) -> AbstractContextManager[RunningServer]:
    database = f"sqlite:///{folder}/jobs.db"
    return running_server(folder, "--model", base, port=None, SDS_CLIP_DATABASE_URL=database, **settings)


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def answer(page: Page, question: str, reason: str, button: str) -> None:
    """Open a question about the alias default, and answer it."""
    page.get_by_role("button", name=f"{question} default").click()
    dialog(page).get_by_label("Reason").fill(reason)
    dialog(page).get_by_role("button", name=button).click()


def test_promotion_lock_and_rollback_are_seen_where_they_act(look: Look, base: str, tmp_path: Path) -> None:
    with serving(tmp_path, base) as server, Registry(server.url, tmp_path, base) as registry:
        one = registry.make(1, evaluations=EVALUATIONS, metadata={"note": ATTACK}, suffix="one")
        other = registry.make(2, base=one)
        first = registry.base.version
        page = look(server.url, "versions")
        aliases = page.get_by_role("region", name="Aliases and where they point")
        tree = page.get_by_role("region", name="Versions and what they were made from")

        expect(tree.get_by_role("rowheader")).to_have_count(3)
        shown = [row.inner_text() for row in tree.get_by_role("rowheader").all()]
        assert [id[:12] in text for id, text in zip((first, one, other), shown, strict=True)] == [True] * 3
        expect(tree.get_by_role("row").nth(2)).to_contain_text("62.5 %57.7 to 67.1 %, n = 400")

        tree.get_by_role("link", name=one[:12]).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(one[:12])
        expect(page.get_by_text(f"note: {ATTACK}")).to_be_visible()
        page.get_by_role("button", name="Promote…").click()
        expect(page.get_by_text("Not compared", exact=True)).to_be_visible()
        expect(page.get_by_role("button", name="Promote to default")).to_be_disabled()
        page.get_by_label("Reason").fill(f"better {ATTACK}")
        page.get_by_label("Wait until every process serves it").check()
        page.get_by_role("button", name="Promote to default").click()
        expect(page.get_by_text("The one process serves it.")).to_be_visible()
        assert registry.served() == one
        page.get_by_role("button", name="Done").click()
        expect(page.get_by_role("listitem").filter(has_text="as default, since")).to_be_visible()

        page.get_by_role("link", name="All versions").click()
        expect(aliases).to_contain_text(one[:12])
        answer(page, "Lock", f"freeze {ATTACK}", "Lock default")
        expect(aliases).to_contain_text(f"freeze {ATTACK}")
        expect(page.get_by_role("button", name="Roll back default")).to_be_disabled()
        tree.get_by_role("link", name=other[:12]).click()
        page.get_by_role("button", name="Promote…").click()
        expect(page.get_by_role("alert")).to_contain_text("default is locked by")
        page.get_by_label("Reason").fill("now")
        expect(page.get_by_role("button", name="Promote to default")).to_be_disabled()
        answer(page, "Unlock", "it is over", "Unlock default")
        expect(page.get_by_role("button", name="Promote to default")).to_be_enabled()

        page.get_by_role("link", name="All versions").click()
        page.get_by_role("button", name="Roll back default").click()
        expect(dialog(page)).to_contain_text(f"from {one[:12]} to {first[:12]}")
        dialog(page).get_by_label("Reason").fill("worse")
        dialog(page).get_by_label("Wait until every process serves it").check()
        dialog(page).get_by_role("button", name=f"Roll back to {first[:12]}").click()
        expect(dialog(page)).to_contain_text("The one process serves it.")
        assert registry.served() == first
        dialog(page).get_by_role("button", name="Done").click()

        assert page.get_by_role("button", name="Remove default").count() == 0
        trial = {"alias": "trial", "reason": "try it"}
        assert registry.client.post(f"/models/{one}/promote", json=trial).status_code == 200
        page.get_by_role("button", name="Remove trial").click()
        dialog(page).get_by_label("Reason").fill("tried")
        dialog(page).get_by_role("button", name="Remove trial").click()
        expect(aliases).not_to_contain_text("trial")
        assert [alias["name"] for alias in registry.client.get("/models").json()["aliases"]] == ["default"]

        page.get_by_role("tab", name="Audit trail").click()
        page.get_by_label("Alias", exact=True).select_option("default")
        lines = page.get_by_role("region", name="What was done to aliases").locator("tbody tr")
        expect(lines).to_have_count(5)
        written = [
            tuple(line.locator("td").nth(column).inner_text() for column in (2, 5)) for line in lines.all()
        ]
        assert written[:4] == [
            ("rolled back", "worse"),
            ("unlocked", "it is over"),
            ("locked", f"freeze {ATTACK}"),
            ("promoted", f"better {ATTACK}"),
        ]


@pytest.mark.long
def test_promotion_by_somebody_else_is_seen_without_a_reload(look: Look, base: str, tmp_path: Path) -> None:
    with serving(tmp_path, base) as server, Registry(server.url, tmp_path, base) as registry:
        version = registry.make(1)
        listed = look(server.url, "versions", width=390)
        # The beginning of an id is looked for as a name first, which is not found.
        shown = look(server.url, f"versions/{version[:12]}", expected="status of 404")
        expect(shown.get_by_text("No alias has pointed to it")).to_be_visible()
        registry.promote(version, "staging", reason="by a script")
        aliases = listed.get_by_role("region", name="Aliases and where they point")

        expect(aliases.get_by_role("row").filter(has_text="staging")).to_contain_text(
            version[:12], timeout=SOON_MS
        )
        # The columns that do not fit beside each other stand below each other.
        staging = aliases.get_by_role("row").filter(has_text="staging")
        expect(staging.get_by_role("button", name="Lock staging")).to_be_in_viewport()
        expect(shown.get_by_role("cell", name="by a script")).to_be_visible(timeout=SOON_MS)
        expect(shown.get_by_role("listitem").filter(has_text="as staging, since")).to_be_visible(
            timeout=SOON_MS
        )


def test_version_is_downloaded_and_then_deleted_by_its_id(look: Look, base: str, tmp_path: Path) -> None:
    with serving(tmp_path, base) as server, Registry(server.url, tmp_path, base) as registry:
        one = registry.make(1)
        other = registry.make(2, base=one)
        page = look(server.url, f"versions/{one}")
        expect(page.get_by_text("while 1 version is based on it")).to_be_visible()
        expect(page.get_by_role("button", name="Delete…")).to_be_disabled()

        page.get_by_role("link", name=other[:12]).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(other[:12])
        with page.expect_download() as downloading:
            page.get_by_role("link", name="Download the change, ").click()
        with tarfile.open(downloading.value.path()) as archive:
            assert any(name.endswith("delta.safetensors") for name in archive.getnames())

        page.get_by_role("button", name="Delete…").click()
        expect(dialog(page).get_by_role("button", name="Delete it")).to_be_disabled()
        dialog(page).get_by_label("to delete it").fill(other[:12])
        dialog(page).get_by_role("button", name="Delete it").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Versions")
        tree = page.get_by_role("region", name="Versions and what they were made from")
        expect(tree.get_by_role("rowheader")).to_have_count(2)
        expect(page.get_by_role("link", name=other[:12])).to_have_count(0)
        assert registry.client.get(f"/models/{other}").json()["status"] == "deleted"


def test_key_without_the_scope_admin_moves_only_the_alias_that_was_given_to_it(
    look: Look, base: str, tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    key = create_key(file, "alice", ["infer", "train"])
    alice = {"Authorization": f"Bearer {key}"}
    root = {"Authorization": f"Bearer {create_key(file, 'root', ['infer', 'train', 'admin'])}"}
    with (
        serving(tmp_path, base, SDS_CLIP_KEYS_FILE=str(file)) as server,
        Registry(server.url, tmp_path, base, alice) as registry,
    ):
        one, other = registry.make(1, owner="alice"), registry.make(2, owner="alice")
        page = look(server.url, "versions")
        sign_in(page, key)
        expect(page.get_by_role("region", name="Aliases and where they point")).to_contain_text("default")
        for action in ("Lock", "Roll back"):
            expect(page.get_by_role("button", name=f"{action} default")).to_have_count(0)
        page.get_by_role("link", name=other[:12]).click()
        expect(page.get_by_role("button", name="Promote…")).to_be_disabled()
        expect(
            page.get_by_text("needs the scope admin, or an alias that was given to this key")
        ).to_be_visible()

        body = {"alias": "hers", "owner": "alice", "reason": "a gift"}
        given = httpx.post(f"{server.url}/models/{one}/promote", json=body, headers=root)
        assert given.status_code == 200, given.text
        page.get_by_role("button", name="Promote…").click()
        expect(page.get_by_label("Alias", exact=True).get_by_role("option")).to_have_text(["hers"])
        page.get_by_label("Reason").fill("mine")
        page.get_by_role("button", name="Promote to hers").click()
        expect(page.get_by_text("The one process serves it.")).to_be_visible()
        assert registry.audit()[0] == ("promote", "mine")


@pytest.mark.long
def test_evaluated_base_has_figures_and_what_the_gate_lacks_is_started_by_a_link(
    look: Look, base: str, tmp_path: Path
) -> None:
    with serving(tmp_path, base) as server, Registry(server.url, tmp_path, base) as registry:
        version, first, name = registry.make(1), registry.base.version, f"colours {ATTACK}"
        data = measured(registry, name)
        page = look(server.url, "versions")
        tree = page.get_by_role("region", name="Versions and what they were made from")
        expect(tree.get_by_role("row").nth(1)).to_contain_text("62.5 %57.7 to 67.1 %, n = 400")
        named = tree.get_by_role("columnheader", name="GroupMatch").get_by_role("link", name=name)
        expect(named).to_have_attribute("href", f"#/data/{data}")
        tree.get_by_role("link", name=first[:12]).click()
        figures = page.get_by_role("region", name="Figures by benchmark")
        expect(figures.get_by_role("rowheader").first).to_have_text(f"winoground on {name}")

        page.get_by_role("link", name=version[:12]).click()
        page.get_by_role("button", name="Promote…").click()
        missing = page.get_by_role("listitem").filter(has_text="Missing: ")
        expect(missing).to_have_count(2)
        expect(missing.last).to_contain_text("zero-shot or retrieval")
        expect(missing.last.get_by_role("link", name="add one")).to_have_attribute("href", "#/data?add=1")
        missing.first.get_by_role("link", name=name).click()
        expect(page.get_by_label("Model", exact=True)).to_have_value(version)
        expect(page.get_by_label("Baseline", exact=True)).to_have_value(first)
        page.get_by_label("Data", exact=True).select_option(data)
        page.get_by_role("button", name="Start the evaluation").click()
        expect(page.get_by_label("Submitted").get_by_role("link")).to_have_count(1)
        job = registry.client.get("/jobs?kind=evaluate&limit=1").json()["data"][0]
        assert (job["model"], job["baseline"], job["data"]) == (version, first, data)


def measured(registry: Registry, name: str) -> str:
    """A data set of this name, on which an evaluation has measured the model in service."""
    data = registry.store.datasets.add(name=name, format="winoground", source={}, owner="")
    claimed = claimed_check(registry.store)
    registry.store.datasets.accept(claimed, content_hash="0" * 64, counts={"items": 400, "usable": 400})
    body = {"model": "default", "benchmark": "winoground", "data": data.id}
    answer = registry.client.post("/evaluate", json=body)
    assert answer.status_code == 202, answer.text
    job = registry.store.leases.claim(JobKind.EVALUATE, "slot", 60)
    assert job is not None
    provenance = {"model_version": registry.base.version, "data_hash": "0" * 64}
    figures = {"benchmark": "winoground", "primary": "group_match", "metrics": {"group_match": METRIC}}
    registry.store.leases.succeed(Lease.of(job), result={**figures, "provenance": provenance})
    return data.id
