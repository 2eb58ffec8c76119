"""A job and its control in a real Chromium: both have measured their versions, and nothing is measured again."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from sds_clip import Client, Job
from sds_clip.demo.folders import write_pairs, write_retrieval
from sds_clip.demo.sets import pairs, retrieval_set
from sds_clip.demo.training_set import DISTILLATION_SEED
from sds_clip.demo.winoground_sets import winoground_items, write_winoground
from sds_clip.demo.world import Split
from tests.browser.console import NEEDS_CONSOLE, Look, go_to, item_cards, percent
from tests.browser.test_results import points, table
from tests.sds_clip.embedded import Running, until
from tools.console_story import SHORT

pytestmark = [pytest.mark.long, *NEEDS_CONSOLE]

TRAINING = {**SHORT, "steps": 3, "warmup_steps": 1, "sds_batch_size": 4, "score_draws": 1}
SETS = {"winoground": 10, "retrieval": 64}
"""The benchmarks, and the items of each or, for Winoground, of each kind."""


@dataclass
class Measured:
    """A job and its control, and the data on which both have measured their versions."""

    url: str
    client: Client
    job: Job
    control: Job
    data: dict[str, str]

    def compared(self, benchmark: str) -> dict[str, Any]:
        return self.job.compare("job-control", on=f"{benchmark} ({self.data[benchmark]})")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("control")
    with closing(Running(folder)) as system, Client(system.url) as client:
        data = uploaded(client, folder)
        evaluate = [{"benchmark": benchmark, "data": data[benchmark]} for benchmark in SETS]
        asked = {"hyperparameters": TRAINING, "evaluate": evaluate}
        control = client.finetune(data["pairs"], objective="clip", name="job-control", **asked)
        job = client.finetune(
            data["pairs"], teacher="demo", name="job", metadata={"control": control.id}, **asked
        )
        for each in (control, job):
            assert each.wait().status == "succeeded", each.error
        yield Measured(system.url, client, job, control, data)


def uploaded(client: Client, folder: Path) -> dict[str, str]:
    write_pairs(folder / "pairs", pairs(Split.TRAIN, DISTILLATION_SEED, 0, 64))
    write_winoground(folder / "winoground", winoground_items(Split.VALIDATION, SETS["winoground"]))
    write_retrieval(folder / "retrieval", retrieval_set(Split.VALIDATION, SETS["retrieval"]))
    formats = ("pairs", *SETS)
    data = {name: str(client.upload_dataset(folder / name, format=name, name=name)["id"]) for name in formats}
    until(lambda: all(client.dataset(each)["status"] == "ready" for each in data.values()))
    return data


def test_job_and_its_control_are_compared_item_by_item_in_results(look: Look, measured: Measured) -> None:
    page = look(measured.url, "results")
    for name in ("job on winoground", "job-control on winoground", "job on retrieval"):
        expect(page.get_by_label(f"Compare {name}", exact=True)).to_be_visible()
    page.get_by_label("Compare job-control on retrieval", exact=True).check()
    page.get_by_label("Compare job on retrieval", exact=True).check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_label("Before", exact=True)).to_contain_text("job-control on retrieval")

    retrieved = measured.compared("retrieval")
    shown = table(page, "Differences over all items")
    outcome = retrieved["outcomes"]["text_retrieval_recall@1"]
    cells = shown["Text retrieval, recall@1"]
    assert cells[0] == points(outcome["difference"])
    assert cells[-6:-4] == [percent(outcome["baseline"]), percent(outcome["model"])]
    expect(item_cards(page).first.locator("img").first).to_have_js_property("naturalWidth", 64)
    page.get_by_role("button", name="Exchange").click()
    expect(page.get_by_label("Before", exact=True)).to_contain_text("job on retrieval")
    assert table(page, "Differences over all items")["Text retrieval, recall@1"][0] == points(
        -outcome["difference"]
    )


def test_page_of_a_job_has_the_control_s_figure_beside_its_own(look: Look, measured: Measured) -> None:
    page = look(measured.url, f"jobs/{measured.job.id}")
    result = page.get_by_role("region", name="Result")
    name = f"winoground ({measured.data['winoground']})"
    for job, text in ((measured.job, "Group score"), (measured.control, "job-control (the control) has")):
        figures = (job.result or {})["evaluations"][name]["metrics"]["group_score"]
        expect(result).to_contain_text(f"{text} {percent(figures['value'])}")
    result.get_by_role("link", name="Compare the items").first.click()
    expect(page.get_by_label("After", exact=True)).to_contain_text("job on winoground")
    counts = measured.compared("winoground")["outcomes"]["group_match"]["counts"]
    shown = table(page, "Differences over all items")["GroupMatch"]
    assert shown[-3:-1] == [str(counts["gained"]), str(counts["lost"])]


def test_open_page_of_a_job_gets_the_control_s_figure_once_the_control_has_ended(
    look: Look, measured: Measured
) -> None:
    data, winoground = (measured.data[name] for name in ("pairs", "winoground"))
    asked = {"hyperparameters": TRAINING, "evaluate": [{"benchmark": "winoground", "data": winoground}]}
    first = measured.client.finetune(data, teacher="demo", name="first", **asked)
    control = measured.client.finetune(data, objective="clip", name="first-control", **asked)
    page = look(measured.url, f"jobs/{first.id}")
    result = page.get_by_role("region", name="Result")
    expect(result).to_contain_text("Group score")
    control.wait()
    figures = (control.result or {})["evaluations"][f"winoground ({winoground})"]["metrics"]["group_score"]
    expect(result).to_contain_text(f"first-control (the control) has {percent(figures['value'])}")


def test_promotion_s_dialog_compares_the_job_with_its_control(look: Look, measured: Measured) -> None:
    assert measured.job.version
    assert measured.control.version
    measured.client.promote(measured.control.version, reason="a start", wait_s=60)
    page = look(measured.url)
    go_to(page, "Versions")
    lineage = page.get_by_role("region", name="Versions and what they were made from")
    lineage.get_by_role("link", name=measured.job.version[:12]).click()
    page.get_by_role("button", name="Promote…").click()

    gate = measured.client.promote(measured.job.version, reason="to see", dry_run=True)["gate"]
    assert gate["verdict"] in ("better", "not_better"), gate["why"]
    word = "Better" if gate["verdict"] == "better" else "Not better"
    expect(page.get_by_text(word, exact=True)).to_be_visible()
    expect(page.get_by_text(measured.control.version[:12]).first).to_be_visible()
    conditions = page.get_by_role("region", name="The gate’s conditions").locator("tbody tr")
    assert [row.locator("td").last.inner_text() for row in conditions.all()] == [
        "pass" if check["passed"] else "fail" for check in gate["checks"]
    ]
    # Another job may have trained the same weights.
    assert {measured.job.id, measured.control.id} <= set(gate["evidence"])
    expect(page.get_by_text("Measured by").get_by_role("link")).to_have_text(gate["evidence"])
