"""POST, GET and DELETE /datasets, up to the check that a worker makes."""

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.app.schemas.datasets import FORMATS
from sds_clip.app.store.records import JobError
from sds_clip.app.store.states import JobKind
from sds_clip.worker.check_job import check, checker_of
from sds_clip.worker.config import WorkerConfig
from tests.app.conftest import png
from tests.app.datasets.archives import tar_of, tree, zip_of
from tests.app.jobs.conftest import Service, error_of
from tests.checks import claimed_check
from tests.worker import in_process
from tests.worker.waiting import until

FORM = {"format": "winoground"}


def winoground(pairs: int = 2) -> dict[str, bytes]:
    """A whole Winoground set."""
    files, lines = {}, []
    for number in range(pairs):
        for place in range(2):
            files[f"images/ex_{number}_img_{place}.png"] = png(seed=2 * number + place)
        line = {
            "id": number,
            "image_0": f"ex_{number}_img_0",
            "image_1": f"ex_{number}_img_1",
            "caption_0": f"a dog number {number} on a mat",
            "caption_1": f"a mat number {number} on a dog",
            "tag": "Adjective",
            "secondary_tag": "",
            "num_main_preds": 1,
            "collapsed_tag": "Object",
        }
        lines.append(json.dumps(line))
    return {"examples.jsonl": "\n".join(lines).encode(), **files}


def upload(service: Service, data: bytes, **form: Any) -> Any:
    return service.client.post("/datasets", data={**FORM, **form}, files={"file": ("a.tar", data)})


def checked(service: Service, dataset_id: str, roots: Path) -> dict[str, Any]:
    """The data set after a worker has looked at it."""
    assert not service.client.get(f"/datasets/{dataset_id}").json()["being_checked"]
    config = WorkerConfig(
        "", str(service.settings.database_url), service.settings.data_dir, "finetune", dataset_roots=(roots,)
    )
    service.store.datasets.enlist_checks(FORMATS)
    with in_process.claimed(config, service.store, JobKind.CHECK) as context:
        assert service.client.get(f"/datasets/{dataset_id}").json()["being_checked"]
        waiting = service.store.datasets.get(dataset_id)
        check(context, waiting, checker_of(waiting))
    dataset: dict[str, Any] = service.client.get(f"/datasets/{dataset_id}").json()
    assert not dataset["being_checked"]
    return dataset


def left(service: Service) -> dict[str, bytes]:
    """All files of all data sets."""
    return tree(service.settings.data_dir / "datasets")


@pytest.mark.parametrize("pack", [tar_of, zip_of], ids=["tar", "zip"])
def test_archive_is_received_checked_and_ready(
    service: Service, roots: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    data = pack(winoground())

    answer = upload(service, data)

    assert answer.status_code == 202
    dataset = answer.json()
    assert answer.headers["Location"] == f"/datasets/{dataset['id']}"
    assert (dataset["status"], dataset["name"], dataset["format"]) == ("validating", "", "winoground")
    digest = hashlib.sha256(data).hexdigest()
    assert dataset["source"] == {"kind": "archive", "path": None, "size_bytes": len(data), "sha256": [digest]}
    ready = checked(service, dataset["id"], roots)
    assert (ready["status"], ready["problems"]) == ("ready", [])
    assert len(ready["content_hash"]) == 64
    assert ready["counts"]["items"] == 2


def test_benchmark_may_lack_what_is_allowed_and_its_jobs_leave_that_out(
    service: Service, roots: Path
) -> None:
    files = winoground()
    del files["images/ex_1_img_0.png"]

    ready = checked(service, upload(service, tar_of(files), max_bad_share=0.5).json()["id"], roots)

    assert (ready["status"], ready["max_bad_share"]) == ("ready", 0.5)
    assert ready["counts"] == {"items": 2, "usable": 1, "images": 2}
    (problem,) = ready["problems"]
    assert problem["code"] == "missing_file"
    assert problem["message"].startswith("images/ex_1_img_0")
    job = {"model": "demo", "benchmark": "winoground", "data": ready["id"], "dry_run": True}
    assert service.client.post("/evaluate", json=job).json()["config"]["max_bad_share"] == 0.5
    stricter = service.client.post("/evaluate", json={**job, "max_bad_share": 0}).json()
    assert stricter["config"]["max_bad_share"] == 0


def test_shards_are_kept_in_their_order(service: Service) -> None:
    shards = [tar_of({f"{number}.png": png(seed=number), f"{number}.txt": b"a dog"}) for number in range(3)]

    answer = service.client.post(
        "/datasets",
        data={"name": "mine", "format": "pairs"},
        files=[("shards", (f"../{number}.tar", shard)) for number, shard in enumerate(shards)],
    )

    dataset = answer.json()
    assert dataset["source"]["kind"] == "shards"
    assert dataset["source"]["size_bytes"] == sum(map(len, shards))
    kept = left(service)
    assert [kept[name] for name in sorted(kept)] == shards


def test_fields_may_come_after_the_file(service: Service) -> None:
    body, content_type = _form([("file", tar_of(winoground())), ("format", b"winoground"), ("name", b"mine")])

    answer = service.client.post("/datasets", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == 202


def test_upload_goes_past_the_limit_of_other_bodies_and_is_held_to_its_own(
    make_service: Callable[..., Service],
) -> None:
    service = make_service(max_body_bytes=2048, max_upload_bytes=60_000)

    assert upload(service, tar_of({"a": bytes(30_000)})).status_code == 202
    before = left(service)
    error = error_of(upload(service, tar_of({"a": bytes(70_000)})), 413)

    assert error["code"] == "upload_too_large"
    assert left(service) == before
    error_of(service.client.post("/datasets", json={**FORM, "source": "/a" * 2000}), 413)


def _form(parts: list[tuple[str, bytes]], *, end: bytes = b"--b--\r\n") -> tuple[bytes, str]:
    body = b""
    for name, content in parts:
        filename = b'; filename="x"' if name in ("file", "shards") else b""
        disposition = b'Content-Disposition: form-data; name="' + name.encode() + b'"' + filename
        body += b"--b\r\n" + disposition + b"\r\n\r\n" + content + b"\r\n"
    return body + end, "multipart/form-data; boundary=b"


TAR = tar_of({"a.txt": b"a"})
NAME, FORMAT = ("name", b"mine"), ("format", b"pairs")
FIELDS = [NAME, FORMAT]
FORMS: dict[str, tuple[list[tuple[str, bytes]], int, dict[str, str]]] = {
    "empty file": ([*FIELDS, ("file", b"")], 422, {"code": "upload_empty"}),
    "no archive": ([*FIELDS, ("file", b"no archive")], 422, {"code": "archive_format"}),
    "bzip2": ([*FIELDS, ("file", b"BZh91AY&SY" + bytes(600))], 422, {"code": "archive_format"}),
    "zip as a shard": ([*FIELDS, ("shards", zip_of({"a.txt": b"a"}))], 422, {}),
    "unknown format": ([NAME, ("format", b"magic"), ("file", TAR)], 422, {"param": "format"}),
    "empty name": ([("name", b""), FORMAT, ("file", TAR)], 422, {"param": "name"}),
    "name of two lines": ([("name", b"a\nb"), FORMAT, ("file", TAR)], 422, {"param": "name"}),
    "long name": ([("name", b"x" * 129), FORMAT, ("file", TAR)], 422, {"param": "name"}),
    "share of two": ([*FIELDS, ("max_bad_share", b"2"), ("file", TAR)], 422, {"param": "max_bad_share"}),
    "no file": (FIELDS, 422, {}),
    "no fields": ([("file", TAR)], 422, {}),
    "two files": ([*FIELDS, ("file", TAR), ("file", TAR)], 400, {}),
    "file and shards": ([*FIELDS, ("file", TAR), ("shards", TAR)], 400, {}),
    "shards and file": ([*FIELDS, ("shards", TAR), ("file", TAR)], 400, {}),
    "field twice": ([*FIELDS, ("name", b"again"), ("file", TAR)], 400, {}),
    "unknown field": ([*FIELDS, ("owner", b"root"), ("file", TAR)], 400, {}),
    "unknown field at the end": ([*FIELDS, ("file", TAR), ("extra", b"x")], 400, {}),
    "not UTF-8": ([("name", b"\xff"), FORMAT, ("file", TAR)], 400, {}),
    "long field": ([("name", b"x" * 70_000), FORMAT, ("file", TAR)], 400, {}),
}


@pytest.mark.parametrize("name", FORMS)
def test_form_that_is_wrong_leaves_nothing_on_the_disk(refusing: Service, name: str) -> None:
    parts, status, told = FORMS[name]
    body, content_type = _form(parts)

    answer = refusing.client.post("/datasets", content=body, headers={"Content-Type": content_type})

    assert told.items() <= error_of(answer, status).items()
    assert left(refusing) == {}
    assert refusing.client.get("/datasets").json()["data"] == []


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (_form([*FIELDS, ("file", TAR)], end=b"")[0], "multipart/form-data; boundary=b"),
        (_form([*FIELDS, ("file", TAR)])[0][:-300], "multipart/form-data; boundary=b"),
        (_form([*FIELDS, ("file", TAR)])[0], "multipart/form-data"),
        (_form([*FIELDS, ("file", TAR)])[0], "multipart/form-data; boundary=other"),
        (b"no form", "multipart/form-data; boundary=b"),
        (b"--b\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\nX: y\r\n\r\nz\r\n--b--\r\n", "multipart/form-data; boundary=b"),
    ],
    ids=["no end", "cut short", "no boundary", "another boundary", "no form", "long headers", "no name"],
)
def test_damaged_form_leaves_nothing_on_the_disk(
    refusing: Service, content: bytes, content_type: str
) -> None:
    answer = refusing.client.post("/datasets", content=content, headers={"Content-Type": content_type})

    assert error_of(answer, 400)["code"] == "malformed_body"
    assert left(refusing) == {}


def test_folder_under_a_root_is_registered_and_stays_when_it_is_deleted(
    service: Service, roots: Path
) -> None:
    for name, content in winoground().items():
        (roots / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (roots / "set" / name).write_bytes(content)

    answer = service.client.post("/datasets", json={**FORM, "source": f"{roots}/set"})

    assert answer.status_code == 202
    dataset = answer.json()
    in_place = {"kind": "registered", "path": f"{roots}/set", "size_bytes": None, "sha256": None}
    assert dataset["source"] == in_place
    assert checked(service, dataset["id"], roots)["status"] == "ready"
    assert service.client.delete(f"/datasets/{dataset['id']}").status_code == 200
    assert (roots / "set" / "examples.jsonl").exists()


def test_source_that_is_not_the_operators_to_give_is_refused(
    service: Service, refusing: Service, roots: Path
) -> None:
    (roots / "link").symlink_to("/etc")
    for each, source, status, code in (
        (service, f"{roots}/link", 403, "source_forbidden"),
        (service, f"{roots}/none", 422, "source_missing"),
        (service, "pipe:cat /etc/passwd", 422, "invalid_request"),
        (refusing, "/usr", 403, "source_forbidden"),  # which has no folders that may be named
    ):
        error = error_of(each.client.post("/datasets", json={**FORM, "source": source}), status)
        assert (error["code"], error["param"]) == (code, "source")
        assert each.client.get("/datasets").json()["data"] == []


def test_deleted_data_set_leaves_the_disk_and_the_list(service: Service) -> None:
    kept, gone = (upload(service, tar_of(winoground(1))).json()["id"] for _ in range(2))

    assert service.client.delete(f"/datasets/{gone}").json()["deleted"]
    assert service.client.delete(f"/datasets/{gone}").json()["deleted"]

    assert [each["id"] for each in service.client.get("/datasets").json()["data"]] == [kept]
    assert service.client.get(f"/datasets/{gone}").json()["status"] == "deleted"
    deleted = service.client.get("/datasets", params={"status": "deleted"}).json()["data"]
    assert [each["id"] for each in deleted] == [gone]
    assert {Path(name).parts[1] for name in left(service)} == {kept}


def test_data_set_that_is_being_checked_is_deleted_and_its_files_follow(service: Service) -> None:
    dataset = upload(service, tar_of(winoground(1))).json()
    folders = DatasetFolders(service.settings.data_dir / "datasets")

    with folders.claim(dataset["id"]):
        assert service.client.delete(f"/datasets/{dataset['id']}").status_code == 200

    assert service.client.get(f"/datasets/{dataset['id']}").json()["status"] == "deleted"


def test_data_set_whose_check_is_paused_says_why_until_it_goes_on(service: Service) -> None:
    dataset = upload(service, tar_of(winoground(1))).json()
    service.store.leases.suspend(claimed_check(service.store), JobError("storage_full", "The disk is full."))

    for shown in (
        service.client.get(f"/datasets/{dataset['id']}").json(),
        service.client.get("/datasets").json()["data"][0],
    ):
        (problem,) = shown["problems"]
        assert (shown["status"], shown["being_checked"], problem["code"]) == (
            "validating",
            False,
            "storage_full",
        )
    resume = problem["message"].split()[-5]
    assert service.client.post(resume).status_code == 200, problem["message"]
    assert service.client.get(f"/datasets/{dataset['id']}").json()["problems"] is None


def test_disk_that_is_full_is_said_and_nothing_is_left(
    refusing: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # /dev/full is a real file on which every write fails for want of space.
    monkeypatch.setattr("sds_clip.app.datasets.receive.create_file", lambda path: io.FileIO("/dev/full", "w"))

    assert error_of(upload(refusing, tar_of(winoground(1))), 507)["code"] == "storage_full"
    assert left(refusing) == {}


def test_more_uploads_at_once_than_allowed_are_turned_away(make_service: Callable[..., Service]) -> None:
    service = make_service(max_uploads=1)
    uploads = service.client.app.state.backend.datasets.uploads  # type: ignore[attr-defined]

    with uploads.hold():
        answer = upload(service, tar_of(winoground(1)))

    assert error_of(answer, 429)["code"] == "overloaded"
    assert upload(service, tar_of(winoground(1))).status_code == 202


def test_next_start_removes_what_a_crash_has_left_and_keeps_checked_sets_of_another_database(
    make_service: Callable[..., Service], tmp_path: Path
) -> None:
    folders = DatasetFolders(tmp_path / "data" / "datasets")
    others, orphan = folders.content("ds_of_another_database"), folders.upload("ds_of_a_crash")
    for folder in (others, orphan):
        folder.mkdir()
        (folder / "file").write_bytes(b"content")

    service = make_service()
    own = upload(service, tar_of(winoground(1))).json()["id"]

    until(lambda: not orphan.exists())
    assert (others / "file").read_bytes() == b"content"
    assert folders.upload(own).exists()
