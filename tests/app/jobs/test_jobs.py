"""GET /jobs and below; cancel, pause, resume, retry and delete. GET /workers."""

from collections.abc import Callable
from pathlib import Path

from sds_clip.app.keys import create_key
from sds_clip.app.store.records import JobError, Move, NewVersion, NewWorker
from sds_clip.app.store.states import JobKind
from tests.app.jobs.conftest import Service, error_of


def test_running_job_shows_how_far_it_is_and_its_newest_metrics(service: Service) -> None:
    job_id, lease = service.begin()
    service.store.leases.progress(lease, stage="training", step=4, steps=10, estimated_finish=2e9)
    service.store.leases.points(lease, {2: {"loss": 3.0}})
    service.store.leases.points(lease, {4: {"loss": float("nan")}})

    job = service.client.get(f"/jobs/{job_id}").json()

    assert (job["status"], job["stage"], job["attempt"]) == ("running", "training", 1)
    assert job["progress"] == {"step": 4, "steps": 10, "share": 0.4}
    assert job["estimated_finish"] == 2e9
    assert (job["metrics"]["step"], job["metrics"]["values"]) == (4, {"loss": None})
    assert [(each["from_status"], each["to_status"]) for each in job["transitions"]] == [
        (None, "queued"),
        ("queued", "running"),
    ]


def test_failed_job_says_why_and_whether_to_try_again(service: Service) -> None:
    job_id, lease = service.begin()
    service.store.leases.fail(lease, JobError("diverged", "The loss is not finite.", "lr"))

    job = service.client.get(f"/jobs/{job_id}").json()

    error = {"code": "diverged", "message": "The loss is not finite.", "param": "lr", "retryable": False}
    assert (job["status"], job["error"]) == ("failed", error)
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]


def test_events_and_metrics_are_paged_by_number_and_step(service: Service) -> None:
    job_id, lease = service.begin()
    for step in range(1, 6):
        service.store.leases.points(lease, {step: {"loss": 1 / step}})

    events = service.client.get(f"/jobs/{job_id}/events", params={"limit": 3}).json()
    rest = service.client.get(f"/jobs/{job_id}/events", params={"after": 3}).json()
    metrics = service.client.get(f"/jobs/{job_id}/metrics", params={"after": 1, "limit": 3}).json()

    assert [event["id"] for event in events["data"]] == [1, 2, 3]
    assert (events["has_more"], rest["has_more"], metrics["has_more"]) == (True, False, True)
    assert [event["id"] for event in rest["data"]] == [4, 5, 6, 7]
    assert events["data"][0]["type"] == "status"
    assert rest["data"][-1]["data"] == {"step": 5, "values": {"loss": 0.2}}
    assert [point["step"] for point in metrics["data"]] == [2, 3, 4]


def test_curve_of_thousands_of_points_is_served_whole_page_by_page(service: Service) -> None:
    job_id, lease = service.begin()
    service.store.leases.points(lease, {step: {"loss": 1 / step} for step in range(1, 2001)})

    steps: list[int] = []
    has_more = True
    while has_more:
        after = {"after": steps[-1] if steps else -1}
        page = service.client.get(f"/jobs/{job_id}/metrics", params=after).json()
        steps += [point["step"] for point in page["data"]]
        has_more = page["has_more"]

    assert steps == list(range(1, 2001))


def write_log(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text(text)


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


def test_log_of_a_job_that_has_made_a_version_is_its_version_s_by_whichever_name(service: Service) -> None:
    job_id, lease = service.begin()
    version = "a" * 64
    write_log(service.settings.data_dir / "versions" / version, '{"step": 1}\n')
    service.store.leases.succeed(
        lease, version=NewVersion(version, f"versions/{version}", {"reference": "demo"}, 1)
    )
    service.store.aliases.promote(Move("mine", "a test", "", 0), version)

    for path in (f"/jobs/{job_id}/log", f"/models/{version}/log", "/models/mine/log"):
        assert service.client.get(path).text == '{"step": 1}\n'


def _evaluated(service: Service, files: dict[str, str]) -> str:
    """An evaluation that has succeeded, and says that it left these files."""
    answer = service.evaluate()
    _, lease = service.claim(JobKind.EVALUATE)
    files = {name: path.format(id=answer.json()["id"]) for name, path in files.items()}
    service.store.leases.succeed(lease, result={"metrics": {"group": 0.25}, "files": files})
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


def test_report_outside_the_jobs_own_folder_is_refused(service: Service) -> None:
    _write(service, "../secret", "secret")
    _write(service, "jobs/other/report.html", "another job's")

    for path in ("../secret", "jobs/{id}/../../../secret", "/etc/hostname", "jobs/other/report.html"):
        job_id = _evaluated(service, {"report": path})
        assert error_of(service.client.get(f"/jobs/{job_id}/report"), 409)["code"] == "files_outside", path


def test_job_that_promotes_is_retried_by_an_administrator_alone(
    make_service: Callable[..., Service], tmp_path: Path
) -> None:
    """Whoever cancelled it may have done so to keep the alias where it is."""
    keys = tmp_path / "keys.json"
    train, both = create_key(keys, "train", ["train"]), create_key(keys, "both", ["train", "admin"])
    service = make_service(keys_file=keys, shared_workspace=True)
    admin = {"Authorization": f"Bearer {both}"}
    answer = service.client.post("/finetune", json=service.request(promote="always"), headers=admin)
    job = f"/jobs/{answer.json()['id']}"
    service.client.post(f"{job}/cancel", headers=admin)

    refused = service.client.post(f"{job}/retry", headers={"Authorization": f"Bearer {train}"})
    assert error_of(refused, 403)["param"] == "promote"
    assert service.client.post(f"{job}/retry", headers=admin).json()["status"] == "queued"


def test_retry_counts_against_the_open_jobs(make_service: Callable[..., Service]) -> None:
    service = make_service(max_open_jobs=1)
    first = service.finetune()["id"]
    service.client.post(f"/jobs/{first}/cancel")
    service.finetune()

    assert error_of(service.client.post(f"/jobs/{first}/retry"), 429)["code"] == "too_many_jobs"


def test_deleted_job_keeps_its_record_and_loses_its_files(service: Service) -> None:
    job_id = _evaluated(service, {"report": "jobs/{id}/1/report.html"})
    file = _write(service, f"jobs/{job_id}/1/report.html", "<p></p>")
    assert service.client.get(f"/jobs/{job_id}").json()["files_removed_at"] is None

    deleted = service.client.delete(f"/jobs/{job_id}").json()

    assert not file.parent.parent.exists()
    assert list((service.settings.data_dir / "jobs").iterdir()) == []
    assert (deleted["status"], deleted["report"]) == ("succeeded", None)
    assert deleted["files_removed_at"] >= deleted["finished_at"]
    assert service.client.delete(f"/jobs/{job_id}").json() == deleted
    assert error_of(service.client.get(f"/jobs/{job_id}/report"), 404)["code"] == "no_report"
    assert len(service.client.get(f"/jobs/{job_id}").json()["transitions"]) == 3


def test_job_whose_queue_has_no_living_worker_says_so(service: Service) -> None:
    worker = NewWorker("host/7/finetune", "host", 7, JobKind.FINETUNE, "cpu", "1.0", 5.0)
    job = service.finetune()
    url = f"/jobs/{job['id']}"
    assert job["no_worker"]
    service.store.workers.beat(worker)
    assert not service.client.get(url).json()["no_worker"]
    assert not service.client.get("/jobs").json()["data"][0]["no_worker"]

    claimed, _ = service.claim()
    service.store.workers.leave(worker.id)

    assert service.client.get(url).json()["no_worker"]
    assert service.client.post(f"{url}/cancel").json()["no_worker"]
    service.store.leases.settle_abandoned()
    assert claimed.id == job["id"]


def test_running_job_says_since_when_its_worker_is_silent(service: Service) -> None:
    job = service.finetune()
    claimed = service.store.leases.claim(JobKind.FINETUNE, "slot", -1.0)
    assert claimed is not None
    shown = service.client.get(f"/jobs/{job['id']}").json()
    assert shown["worker_silent_since"] == claimed.lease_until
    assert service.client.get("/jobs").json()["data"][0]["worker_silent_since"] is None


def test_job_says_what_it_waits_for(service: Service) -> None:
    job = service.finetune()
    waits = lambda: service.client.get(f"/jobs/{job['id']}").json()["waits_for"]  # noqa: E731
    assert waits() == "worker"
    service.store.workers.beat(NewWorker("slot", "host", 7, JobKind.FINETUNE, "cpu", "1.0", 5.0))
    assert waits() == "turn"
    _, lease = service.claim()
    assert waits() is None
    service.store.leases.fail(lease, JobError("boom", "Boom."), retry_in_s=100)
    assert waits() == "attempt"
    service.client.post(f"/jobs/{job['id']}/pause")
    assert waits() is None
    service.client.post(f"/jobs/{job['id']}/resume")
    assert service.store.leases.claim(JobKind.FINETUNE, "gone", -1.0) is not None
    assert waits() == "silent_worker"
    assert service.store.leases.claim(JobKind.FINETUNE, "slot", 60) is not None
    service.client.post(f"/jobs/{job['id']}/pause")
    assert waits() == "checkpoint"


def test_workers_are_listed_with_the_job_that_each_has(service: Service) -> None:
    assert service.client.get("/workers").json() == {"object": "list", "data": []}
    service.store.workers.beat(NewWorker("slot", "host", 7, JobKind.FINETUNE, "cuda:0", "1.0", 5.0))
    job_id = service.finetune()["id"]
    service.claim()

    (worker,) = service.client.get("/workers").json()["data"]

    assert worker.pop("seen_at") > 5.0
    assert worker == {
        "id": "slot",
        "object": "worker",
        "alive": True,
        "queue": "finetune",
        "host": "host",
        "pid": 7,
        "device": "cuda:0",
        "version": "1.0",
        "started_at": 5.0,
        "clock_skew_s": 0.0,
        "out_because": None,
        "job": job_id,
    }


def test_limits_of_a_job_are_the_operator_s_or_less_running_time(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(max_attempts=5, max_run_time_s=60.0)

    job, short = service.finetune(), service.finetune(max_run_time_s=10)

    assert (job["max_attempts"], job["max_interruptions"], job["max_run_time_s"]) == (5, 100, 60.0)
    assert short["max_run_time_s"] == 10.0
    for asked in (61, 0):
        body = service.request(max_run_time_s=asked)
        assert error_of(service.client.post("/finetune", json=body), 422)["param"] == "max_run_time_s"


def test_job_may_ask_for_as_many_devices_as_a_living_worker_has(make_service: Callable[..., Service]) -> None:
    service = make_service()
    assert service.finetune(devices=2)["no_worker"], "a worker that has them may still come"
    service.store.workers.beat(NewWorker("a", "host", 7, JobKind.FINETUNE, "cuda:0,cuda:1", "1.0", 5.0))
    taken = service.finetune(devices=2)
    assert (taken["devices"], taken["no_worker"]) == (2, False)
    body = service.request(devices=4)
    error = error_of(service.client.post("/finetune", json=body), 422)
    assert (error["param"], "more than 2" in error["message"]) == ("devices", True)
