"""GET /models and below: versions, promotion, download and deletion, on weights that are really served."""

import io
import tarfile
from pathlib import Path

import pytest

from sds_clip.app.store.records import JobError, NewVersion
from sds_clip.models.checkpoints.load import load_clip
from tests.app.jobs.conftest import Quick, Service, error_of
from tests.app.serving.swapping import publish_tuned
from tests.databases import on_both
from tests.worker.waiting import until

REASON = {"reason": "it is better"}


def test_start_makes_known_what_is_served_and_points_default_at_it(quick: Quick) -> None:
    listed = quick.client.get("/models").json()

    assert listed["registry"] == "read"
    assert {model["version"] for model in listed["models"]} == {quick.base}
    (version,), (alias,) = listed["versions"], listed["aliases"]
    assert (version["id"], version["downloadable"]) == (quick.base, False)
    assert (alias["name"], alias["version"], alias["generation"]) == ("default", quick.base, 1)


def test_version_shows_where_it_comes_from_and_how_good_it_is(quick: Quick) -> None:
    version = quick.publish()
    quick.promote(version, alias="canary")

    by_id, by_alias = (quick.client.get(f"/models/{name}").json() for name in (version, "canary"))

    assert by_id == by_alias
    assert (by_id["id"], by_id["status"], by_id["aliases"]) == (version, "ready", ["canary"])
    assert (by_id["base_version"], by_id["lineage"]) == (quick.base, [quick.base])
    assert by_id["metrics"] == {"group": 0.25}
    assert by_id["evaluations"] == {"winoground (ds_1)": {"metrics": {"group": 0.25}}}
    assert by_id["job_id"].startswith("job_")
    assert [line["why"] for line in by_id["promotions"]] == ["it is better"]
    assert "folder" not in by_id


def test_deltas_of_a_base_are_found_by_its_id_and_by_a_name_that_is_served(quick: Quick) -> None:
    version = quick.publish()

    named = [quick.base, quick.base[:8], "default"]
    for base, found in (*((name, [version]) for name in named), (version, []), (version[:8], [])):
        listed = quick.client.get("/models", params={"base": base}).json()["versions"]
        assert [each["id"] for each in listed] == found

    answer = quick.client.get("/models", params={"base": "0" * 12})
    assert error_of(answer, 404)["param"] == "base"


def test_beginning_of_an_id_stands_for_it_in_every_route_of_a_version(quick: Quick) -> None:
    version = quick.publish()
    path, short = f"/models/{version}", f"/models/{version[:8]}"

    assert quick.client.get(short).json() == quick.client.get(path).json()
    assert error_of(quick.client.get(f"{short}/log"), 404)["code"] == "no_log"
    tars = [quick.client.get(f"{each}/download") for each in (short, path)]
    assert tars[0].status_code == 200
    assert tars[0].content == tars[1].content
    expected = {"name": version, "version": version, "generation": 1}
    assert quick.match(model=version[:8]).json()["model"] == expected
    tried = quick.promote(version[:8], dry_run=True).json()
    assert (tried["to_version"], tried["moves"]) == (version, True)
    assert quick.promote(version[:8], alias="canary").json()["version"] == version
    quick.client.post("/models/canary/remove", json=REASON)
    for _ in range(2):
        deleted = quick.client.delete(short).json()
        assert deleted == {"id": version, "object": "model", "deleted": True}
    assert quick.client.get(short).json()["status"] == "deleted"
    assert error_of(quick.client.get("/models/00000000"), 404)["code"] == "version_not_found"


def test_alias_precedes_the_beginning_of_an_id(quick: Quick) -> None:
    version = quick.publish()
    alias = version[:8]
    quick.promote(quick.base, alias=alias)

    # While it is loaded, it has no answer.
    until(lambda: quick.match(model=alias).json().get("model", {}).get("name") == alias)
    assert quick.client.get(f"/models/{alias}").json()["id"] == quick.base
    assert quick.finetune(base=alias)["base"] == quick.base
    answer = quick.match(model=alias)
    assert answer.json()["model"]["version"] == quick.base
    listed = quick.client.get("/models", params={"base": alias}).json()["versions"]
    assert [each["id"] for each in listed] == [version]
    # Only the id of a version names what is promoted or deleted, so this name is none.
    for answer in (quick.promote(alias), quick.client.delete(f"/models/{alias}")):
        assert error_of(answer, 404)["code"] == "version_not_found"


def test_version_that_its_job_found_not_better_takes_force(quick: Quick) -> None:
    verdict = {"alias": "default", "promoted": False, "why": "group score 0.5 -> 0.4, so it is not better."}
    version = quick.publish(result={"promotion": verdict})

    refused = quick.promote(version)
    elsewhere = quick.promote(version, alias="canary")
    forced = quick.promote(version, force=True)

    assert error_of(refused, 409)["code"] == "not_better"
    assert "0.5 -> 0.4" in refused.json()["error"]["message"]
    assert (elsewhere.status_code, forced.status_code) == (200, 200)
    assert quick.store.aliases.promotions("default")[0].forced


def test_version_of_a_failed_job_is_unknown_though_its_folder_is_there(quick: Quick) -> None:
    version = publish_tuned(quick.folder(""), quick.clip, quick.scratch / "delta", seed=0)
    quick.finetune()
    _, lease = quick.claim()
    quick.store.leases.fail(lease, JobError("diverged", "It diverged."))

    answer = quick.promote(version)

    assert error_of(answer, 404)["code"] == "version_not_found"
    assert error_of(quick.client.get(f"/models/{version}"), 404)["code"] == "version_not_found"
    assert error_of(quick.match(model=version), 404)["code"] == "unknown_model"


def status_of(service: Service, version: str) -> tuple[str, str, bool]:
    """A version's status by its record and in the list, and whether it can be downloaded."""
    record = service.client.get(f"/models/{version}").json()
    (listed,) = (each for each in service.client.get("/models").json()["versions"] if each["id"] == version)
    assert (record["damaged_at"] is None) == (record["status"] != "damaged")
    return record["status"], listed["status"], record["downloadable"]


@on_both
def test_damaged_version_is_told_as_such_by_everything_that_would_use_it(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.version_cache.RETRY_FAILED_AFTER_S", 0.0)
    version = quick.publish()
    weights = quick.folder(version) / "delta.safetensors"
    content = weights.read_bytes()
    assert status_of(quick, version) == ("ready", "ready", True)

    weights.write_bytes(content[:-1] + b"x")
    refused = [
        quick.match(model=version),
        quick.client.get(f"/models/{version}/download"),
        quick.client.get(f"/models/{version}/download", params={"weights": "full"}),
        quick.promote(version),
        quick.promote(version, force=True),
    ]
    for answer in refused:
        error = error_of(answer, 409)
        assert (error["code"], error["type"]) == ("version_damaged", "invalid_request_error")
        assert "Retry-After" not in answer.headers
    assert status_of(quick, version) == ("damaged", "damaged", False)
    assert quick.served() == quick.base

    weights.write_bytes(content)
    assert quick.match(model=version).status_code == 200
    assert status_of(quick, version) == ("ready", "ready", True)

    weights.write_bytes(content[:-1] + b"x")  # whoever finds it first records it, a download too
    error_of(quick.client.get(f"/models/{version}/download"), 409)
    assert status_of(quick, version)[0] == "damaged"
    weights.write_bytes(content)
    assert quick.client.get(f"/models/{version}/download").status_code == 200
    assert status_of(quick, version)[0] == "ready"


def test_version_that_is_published_again_is_damaged_no_more(quick: Quick) -> None:
    version = quick.publish()
    folder = quick.folder(version)
    (folder / "delta.safetensors").write_bytes(b"x")
    error_of(quick.client.get(f"/models/{version}/download"), 409)

    assert publish_tuned(folder.parent, quick.clip, quick.scratch / "again", seed=0) == version
    row = quick.store.versions.get(version)
    quick.store.versions.register(NewVersion(version, row.folder, row.description, row.size_bytes))

    assert status_of(quick, version) == ("ready", "ready", True)
    assert quick.client.get(f"/models/{version}/download").status_code == 200


def test_deleted_version_loses_its_files_and_keeps_its_record(quick: Quick) -> None:
    version = quick.publish()

    deleted = quick.client.delete(f"/models/{version}").json()
    assert deleted == {"id": version, "object": "model", "deleted": True}
    assert not quick.folder(version).exists()
    assert quick.client.get(f"/models/{version}").json()["status"] == "deleted"


def test_files_that_a_killed_process_has_left_of_a_deleted_version_go_when_it_is_deleted_again(
    quick: Quick,
) -> None:
    version = quick.publish()
    quick.store.versions.delete(version)

    assert quick.client.delete(f"/models/{version}").status_code == 200

    assert list(quick.folder("").iterdir()) == []


def _unpacked(content: bytes, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    (only,) = folder.iterdir()
    return only


def test_downloaded_delta_is_the_published_folder_byte_for_byte(quick: Quick) -> None:
    version = quick.publish()
    folder = quick.folder(version)

    answer = quick.client.get(f"/models/{version}/download")

    assert answer.headers["Content-Type"] == "application/x-tar"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    unpacked = _unpacked(answer.content, quick.scratch / "unpacked")
    assert unpacked.name == f"sds-clip-{version[:12]}"
    assert {file.name: file.read_bytes() for file in unpacked.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_downloaded_whole_weights_load_by_themselves_as_the_same_version(quick: Quick) -> None:
    version = quick.publish()

    answer = quick.client.get(f"/models/{version}/download", params={"weights": "full"})

    unpacked = _unpacked(answer.content, quick.scratch / "unpacked")
    assert (unpacked / "open_clip_config.json").exists()
    assert load_clip(f"local-dir:{unpacked}", device="cpu", precision="float32").version == version
    assert list((quick.settings.data_dir / "exports").iterdir()) == []
