"""GET /jobs and below; cancel, pause and resume."""

from pathlib import Path

import pytest

from app.jobs.states import JobKind
from app.store.assets import Move, NewVersion
from app.store.records import JobError
from tests.app.jobs.conftest import Service, error_of
from tests.databases import on_both


@on_both
def test_list_is_paged_from_the_newest_and_filtered(service: Service) -> None:
    training = service.ready_dataset()
    ids = [service.finetune(training_data=training)["id"] for _ in range(5)]
    service.client.post(f"/jobs/{ids[2]}/cancel")

    first = service.client.get("/jobs", params={"limit": 2}).json()
    second = service.client.get("/jobs", params={"limit": 3, "after": first["data"][-1]["id"]}).json()
    cancelled = service.client.get("/jobs", params={"status": "cancelled"}).json()

    assert first["object"] == "list"
    assert [job["id"] for job in first["data"]] == [ids[4], ids[3]]
    assert first["has_more"]
    assert [job["id"] for job in second["data"]] == [ids[2], ids[1], ids[0]]
    assert not second["has_more"]
    assert [job["id"] for job in cancelled["data"]] == [ids[2]]
    assert service.client.get("/jobs", params={"kind": "evaluate"}).json()["data"] == []


@pytest.mark.parametrize(
    "parameters",
    [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"status": "done"}, {"kind": "train"}, {"after": "a" * 129}],
)  # fmt: skip
def test_list_refuses_parameters_out_of_range(refusing: Service, parameters: dict[str, str | int]) -> None:
    error_of(refusing.client.get("/jobs", params=parameters), 422)


@pytest.mark.parametrize(
    "path", ["", "/events", "/metrics", "/report", "/log", "/cancel", "/pause", "/resume"]
)  # fmt: skip
def test_unknown_job_is_not_found(refusing: Service, path: str) -> None:
    method = "POST" if path in ("/cancel", "/pause", "/resume") else "GET"

    assert error_of(refusing.client.request(method, f"/jobs/job_none{path}"), 404)["code"] == "job_not_found"


def test_page_after_an_unknown_job_is_not_found(refusing: Service) -> None:
    error = error_of(refusing.client.get("/jobs", params={"after": "job_none"}), 404)

    assert (error["code"], error["param"]) == ("job_not_found", "after")


@on_both
def test_running_job_shows_how_far_it_is_and_its_newest_metrics(service: Service) -> None:
    job_id = service.finetune()["id"]
    _, lease = service.claim()
    service.store.work.progress(lease, stage="training", step=4, steps=10, estimated_finish=2e9)
    service.store.work.metrics(lease, 2, {"loss": 3.0})
    service.store.work.metrics(lease, 4, {"loss": float("nan")})

    job = service.client.get(f"/jobs/{job_id}").json()

    assert (job["status"], job["stage"], job["attempt"]) == ("running", "training", 1)
    assert job["progress"] == {"step": 4, "steps": 10, "share": 0.4}
    assert job["estimated_finish"] == 2e9
    assert (job["metrics"]["step"], job["metrics"]["values"]) == (4, {"loss": None})
    assert [(each["from_status"], each["to_status"]) for each in job["transitions"]] == [
        (None, "queued"),
        ("queued", "running"),
    ]


@on_both
def test_failed_job_says_why_and_whether_to_try_again(service: Service) -> None:
    job_id = service.finetune()["id"]
    _, lease = service.claim()
    service.store.work.fail(lease, JobError("diverged", "The loss is not finite.", "lr"))

    job = service.client.get(f"/jobs/{job_id}").json()

    assert job["status"] == "failed"
    assert job["error"] == {
        "code": "diverged",
        "message": "The loss is not finite.",
        "param": "lr",
        "retryable": False,
    }
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]


@on_both
def test_events_and_metrics_are_paged_by_number_and_step(service: Service) -> None:
    job_id = service.finetune()["id"]
    _, lease = service.claim()
    for step in range(1, 6):
        service.store.work.metrics(lease, step, {"loss": 1 / step})

    events = service.client.get(f"/jobs/{job_id}/events", params={"limit": 3}).json()
    rest = service.client.get(f"/jobs/{job_id}/events", params={"after": 3}).json()
    metrics = service.client.get(f"/jobs/{job_id}/metrics", params={"after": 1, "limit": 3}).json()

    assert [event["id"] for event in events["data"]] == [1, 2, 3]
    assert (events["has_more"], rest["has_more"], metrics["has_more"]) == (True, False, True)
    assert [event["id"] for event in rest["data"]] == [4, 5, 6, 7]
    assert events["data"][0]["type"] == "status"
    assert rest["data"][-1]["data"] == {"step": 5, "values": {"loss": 0.2}}
    assert [point["step"] for point in metrics["data"]] == [2, 3, 4]


@on_both
def test_curve_of_thousands_of_points_is_served_whole_page_by_page(service: Service) -> None:
    job_id = service.finetune()["id"]
    _, lease = service.claim()
    service.store.work.points(lease, {step: {"loss": 1 / step} for step in range(1, 2001)})

    steps: list[int] = []
    has_more = True
    while has_more:
        page = service.client.get(
            f"/jobs/{job_id}/metrics", params={"after": steps[-1] if steps else -1}
        ).json()
        steps += [point["step"] for point in page["data"]]
        has_more = page["has_more"]

    assert steps == list(range(1, 2001))


def write_log(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text(text)


@on_both
def test_log_of_the_newest_attempt_is_served_while_the_job_runs_without_a_half_written_line(
    service: Service,
) -> None:
    job_id = service.finetune()["id"]
    lines = "".join(f'{{"step": {step}, "loss": 0.123456}}\n' for step in range(5000))
    folder = service.settings.data_dir / "jobs" / job_id
    write_log(folder / "9" / "run", "an earlier attempt's")
    write_log(folder / "10" / "run", lines + '{"step": 5')
    (folder / "11").mkdir()

    answer = service.client.get(f"/jobs/{job_id}/log")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/jsonl"
    assert answer.text == lines


@on_both
def test_log_of_a_job_that_has_made_a_version_is_its_version_s_by_whichever_name(service: Service) -> None:
    job_id = service.finetune()["id"]
    _, lease = service.claim()
    version = "a" * 64
    write_log(service.settings.data_dir / "versions" / version, '{"step": 1}\n')
    service.store.work.succeed(
        lease, version=NewVersion(version, f"versions/{version}", {"reference": "demo"}, 1)
    )
    service.store.aliases.promote(Move("mine", "a test", "", 0), version)

    for path in (f"/jobs/{job_id}/log", f"/models/{version}/log", "/models/mine/log"):
        assert service.client.get(path).text == '{"step": 1}\n'


def test_job_that_has_not_begun_and_a_version_that_nobody_trained_have_no_log(service: Service) -> None:
    job_id = service.finetune()["id"]

    assert error_of(service.client.get(f"/jobs/{job_id}/log"), 404)["code"] == "no_log"
    assert error_of(service.client.get("/models/default/log"), 404)["code"] == "no_log"
    assert error_of(service.client.get(f"/models/{'0' * 64}/log"), 404)["code"] == "version_not_found"


@on_both
def test_numbers_that_no_database_has_are_refused_and_large_ones_find_nothing(service: Service) -> None:
    job_id = service.finetune()["id"]

    error_of(service.client.get(f"/jobs/{job_id}/events", params={"after": 2**70}), 422)
    error_of(service.client.get(f"/jobs/{job_id}/events", params={"after": -1}), 422)
    assert service.client.get(f"/jobs/{job_id}/events", params={"after": 2**61}).json()["data"] == []
    assert service.client.get(f"/jobs/{job_id}/metrics", params={"after": 2**61}).json()["data"] == []


@on_both
def test_queued_job_is_cancelled_at_once_and_a_running_one_by_its_worker(service: Service) -> None:
    waiting, running = service.finetune()["id"], service.finetune()["id"]
    service.claim()  # the oldest

    cancelled = service.client.post(f"/jobs/{running}/cancel").json()
    asked = service.client.post(f"/jobs/{waiting}/cancel").json()

    assert {cancelled["status"], asked["status"]} == {"cancelled", "cancelling"}
    assert service.client.post(f"/jobs/{waiting}/cancel").json()["status"] == asked["status"]


@on_both
def test_paused_job_goes_on_when_it_is_resumed(service: Service) -> None:
    job_id = service.finetune()["id"]

    assert service.client.post(f"/jobs/{job_id}/pause").json()["status"] == "paused"
    assert service.client.post(f"/jobs/{job_id}/pause").json()["status"] == "paused"
    assert service.client.post(f"/jobs/{job_id}/resume").json()["status"] == "queued"


@pytest.mark.parametrize("action", ["cancel", "pause", "resume"])
def test_job_that_has_ended_cannot_be_asked_for_anything(service: Service, action: str) -> None:
    job_id = service.finetune()["id"]
    _, lease = service.claim()
    service.store.work.succeed(lease)

    assert error_of(service.client.post(f"/jobs/{job_id}/{action}"), 409)["code"] == "job_state"


def _evaluated(service: Service, files: dict[str, str]) -> str:
    """An evaluation that has succeeded, and says that it left these files."""
    data = service.ready_dataset("winoground")
    answer = service.client.post("/evaluate", json={"model": "demo", "benchmark": "winoground", "data": data})
    _, lease = service.claim(JobKind.EVALUATE)
    files = {name: path.format(id=answer.json()["id"]) for name, path in files.items()}
    service.store.work.succeed(lease, result={"metrics": {"group": 0.25}, "files": files})
    return str(answer.json()["id"])


def _write(service: Service, path: str, text: str) -> Path:
    file = service.settings.data_dir / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_report_is_served_without_scripts_origin_or_requests(service: Service) -> None:
    job_id = _evaluated(service, {"report": "jobs/{id}/1/report.html"})
    _write(service, f"jobs/{job_id}/1/report.html", "<p>a &amp; b</p>")

    job = service.client.get(f"/jobs/{job_id}").json()
    answer = service.client.get(job["report"])

    assert answer.text == "<p>a &amp; b</p>"
    assert answer.headers["Content-Type"].startswith("text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert job["result"] == {"metrics": {"group": 0.25}}


@pytest.mark.parametrize(
    "path", ["../secret", "jobs/{id}/../../../secret", "/etc/hostname", "jobs/other/report.html"]
)
def test_report_outside_the_jobs_own_folder_is_none(service: Service, path: str) -> None:
    job_id = _evaluated(service, {"report": path})
    _write(service, "../secret", "secret")
    _write(service, "jobs/other/report.html", "another job's")

    assert error_of(service.client.get(f"/jobs/{job_id}/report"), 404)["code"] == "no_report"


def test_job_without_a_report_has_none(service: Service) -> None:
    job = service.finetune()

    assert job["report"] is None
    assert error_of(service.client.get(f"/jobs/{job['id']}/report"), 404)["code"] == "no_report"
