"""GET /models and below: versions, promotion, download and deletion, on weights that are really served."""

import io
import tarfile
from pathlib import Path

import pytest

from sds_clip.app.store.records import JobError, NewVersion
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from tests.app.jobs.conftest import Service, error_of, published, served
from tests.app.serving.swapping import MATCH, publish_tuned
from tests.databases import on_both
from tests.worker.waiting import until

REASON = {"reason": "it is better"}


def test_start_makes_known_what_is_served_and_points_default_at_it(quick: Service, small_clip: Clip) -> None:
    listed = quick.client.get("/models").json()

    assert listed["registry"] == "read"
    assert {model["version"] for model in listed["models"]} == {small_clip.version}
    assert [(each["id"], each["downloadable"]) for each in listed["versions"]] == [
        (small_clip.version, False)
    ]
    assert [(each["name"], each["version"], each["generation"]) for each in listed["aliases"]] == [
        ("default", small_clip.version, 1)
    ]


def test_version_shows_where_it_comes_from_and_how_good_it_is(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = published(quick, small_clip, tmp_path)
    quick.client.post(f"/models/{version}/promote", json={"alias": "canary", **REASON})

    by_id, by_alias = (quick.client.get(f"/models/{name}").json() for name in (version, "canary"))

    assert by_id == by_alias
    assert (by_id["id"], by_id["status"], by_id["aliases"]) == (version, "ready", ["canary"])
    assert (by_id["base_version"], by_id["lineage"]) == (small_clip.version, [small_clip.version])
    assert by_id["metrics"] == {"group": 0.25}
    assert by_id["evaluations"] == {"winoground (ds_1)": {"metrics": {"group": 0.25}}}
    assert by_id["job_id"].startswith("job_")
    assert [line["why"] for line in by_id["promotions"]] == ["it is better"]
    assert "folder" not in by_id


def test_deltas_of_a_base_are_found_by_its_id_and_by_a_name_that_is_served(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = published(quick, small_clip, tmp_path)

    named = [small_clip.version, small_clip.version[:8], "default"]
    for base, found in (*((name, [version]) for name in named), (version, []), (version[:8], [])):
        listed = quick.client.get("/models", params={"base": base}).json()["versions"]
        assert [each["id"] for each in listed] == found

    answer = quick.client.get("/models", params={"base": "0" * 12})
    assert error_of(answer, 404)["param"] == "base"


def test_beginning_of_an_id_stands_for_it_in_every_route_of_a_version(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = published(quick, small_clip, tmp_path)
    path, short = f"/models/{version}", f"/models/{version[:8]}"

    assert quick.client.get(short).json() == quick.client.get(path).json()
    assert error_of(quick.client.get(f"{short}/log"), 404)["code"] == "no_log"
    tars = [quick.client.get(f"{each}/download") for each in (short, path)]
    assert tars[0].status_code == 200
    assert tars[0].content == tars[1].content
    assert quick.client.post("/match", json={**MATCH, "model": version[:8]}).json()["model"] == {
        "name": version, "version": version, "generation": 1,
    }  # fmt: skip
    tried = quick.client.post(f"{short}/promote", json={"dry_run": True, **REASON}).json()
    assert (tried["to_version"], tried["moves"]) == (version, True)
    promoted = quick.client.post(f"{short}/promote", json={"alias": "canary", **REASON}).json()
    assert promoted["version"] == version
    quick.client.post("/models/canary/remove", json=REASON)
    for _ in range(2):
        deleted = quick.client.delete(short).json()
        assert deleted == {"id": version, "object": "model", "deleted": True}
    assert quick.client.get(short).json()["status"] == "deleted"
    assert error_of(quick.client.get("/models/00000000"), 404)["code"] == "version_not_found"


def test_alias_precedes_the_beginning_of_an_id(quick: Service, small_clip: Clip, tmp_path: Path) -> None:
    version = published(quick, small_clip, tmp_path)
    alias = version[:8]
    quick.client.post(f"/models/{small_clip.version}/promote", json={"alias": alias, **REASON})

    def name_that_answers() -> str | None:
        answer = quick.client.post("/match", json={**MATCH, "model": alias}).json()
        name: str | None = answer.get("model", {}).get("name")  # while it is loaded, it has no answer
        return name

    until(lambda: name_that_answers() == alias)
    assert quick.client.get(f"/models/{alias}").json()["id"] == small_clip.version
    assert quick.finetune(base=alias)["base"] == small_clip.version
    answer = quick.client.post("/match", json={**MATCH, "model": alias})
    assert answer.json()["model"]["version"] == small_clip.version
    listed = quick.client.get("/models", params={"base": alias}).json()["versions"]
    assert [each["id"] for each in listed] == [version]
    # Only the id of a version names what is promoted or deleted, so this name is none.
    for answer in (
        quick.client.post(f"/models/{alias}/promote", json=REASON),
        quick.client.delete(f"/models/{alias}"),
    ):
        assert error_of(answer, 404)["code"] == "version_not_found"


def test_version_that_its_job_found_not_better_takes_force(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    verdict = {"alias": "default", "promoted": False, "why": "group score 0.5 -> 0.4, so it is not better."}
    version = published(quick, small_clip, tmp_path, result={"promotion": verdict})

    refused = quick.client.post(f"/models/{version}/promote", json=REASON)
    elsewhere = quick.client.post(f"/models/{version}/promote", json={**REASON, "alias": "canary"})
    forced = quick.client.post(f"/models/{version}/promote", json={**REASON, "force": True})

    assert error_of(refused, 409)["code"] == "not_better"
    assert "0.5 -> 0.4" in refused.json()["error"]["message"]
    assert (elsewhere.status_code, forced.status_code) == (200, 200)
    assert quick.store.aliases.promotions("default")[0].forced


def test_version_of_a_failed_job_is_unknown_though_its_folder_is_there(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = publish_tuned(quick.settings.data_dir / "versions", small_clip, tmp_path / "delta", seed=0)
    quick.finetune()
    _, lease = quick.claim()
    quick.store.leases.fail(lease, JobError("diverged", "It diverged."))

    answer = quick.client.post(f"/models/{version}/promote", json=REASON)

    assert error_of(answer, 404)["code"] == "version_not_found"
    assert error_of(quick.client.get(f"/models/{version}"), 404)["code"] == "version_not_found"
    assert (
        error_of(quick.client.post("/match", json={**MATCH, "model": version}), 404)["code"]
        == "unknown_model"
    )


def status_of(service: Service, version: str) -> tuple[str, str, bool]:
    """A version's status by its record and in the list, and whether it can be downloaded."""
    record = service.client.get(f"/models/{version}").json()
    (listed,) = (each for each in service.client.get("/models").json()["versions"] if each["id"] == version)
    assert (record["damaged_at"] is None) == (record["status"] != "damaged")
    return record["status"], listed["status"], record["downloadable"]


@on_both
def test_damaged_version_is_told_as_such_by_everything_that_would_use_it(
    quick: Service, small_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sds_clip.app.serving.version_cache.RETRY_FAILED_AFTER_S", 0.0)
    version = published(quick, small_clip, tmp_path)
    weights = quick.settings.data_dir / "versions" / version / "delta.safetensors"
    content = weights.read_bytes()
    assert status_of(quick, version) == ("ready", "ready", True)

    weights.write_bytes(content[:-1] + b"x")
    refused = [
        quick.client.post("/match", json={**MATCH, "model": version}),
        quick.client.get(f"/models/{version}/download"),
        quick.client.get(f"/models/{version}/download", params={"weights": "full"}),
        quick.client.post(f"/models/{version}/promote", json=REASON),
        quick.client.post(f"/models/{version}/promote", json={**REASON, "force": True}),
    ]
    for answer in refused:
        error = error_of(answer, 409)
        assert (error["code"], error["type"]) == ("version_damaged", "invalid_request_error")
        assert "Retry-After" not in answer.headers
    assert status_of(quick, version) == ("damaged", "damaged", False)
    assert served(quick) == small_clip.version

    weights.write_bytes(content)
    assert quick.client.post("/match", json={**MATCH, "model": version}).status_code == 200
    assert status_of(quick, version) == ("ready", "ready", True)

    weights.write_bytes(content[:-1] + b"x")  # whoever finds it first records it, a download too
    error_of(quick.client.get(f"/models/{version}/download"), 409)
    assert status_of(quick, version)[0] == "damaged"
    weights.write_bytes(content)
    assert quick.client.get(f"/models/{version}/download").status_code == 200
    assert status_of(quick, version)[0] == "ready"


def test_version_that_is_published_again_is_damaged_no_more(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = published(quick, small_clip, tmp_path)
    folder = quick.settings.data_dir / "versions" / version
    (folder / "delta.safetensors").write_bytes(b"x")
    error_of(quick.client.get(f"/models/{version}/download"), 409)

    assert publish_tuned(folder.parent, small_clip, tmp_path / "again", seed=0) == version
    row = quick.store.versions.get(version)
    quick.store.versions.register(NewVersion(version, row.folder, row.description, row.size_bytes))

    assert status_of(quick, version) == ("ready", "ready", True)
    assert quick.client.get(f"/models/{version}/download").status_code == 200


def test_deleted_version_loses_its_files_and_keeps_its_record(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = published(quick, small_clip, tmp_path)

    assert quick.client.delete(f"/models/{version}").json() == {
        "id": version, "object": "model", "deleted": True,
    }  # fmt: skip
    assert not (quick.settings.data_dir / "versions" / version).exists()
    assert quick.client.get(f"/models/{version}").json()["status"] == "deleted"


def test_files_that_a_killed_process_has_left_of_a_deleted_version_go_when_it_is_deleted_again(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = published(quick, small_clip, tmp_path)
    quick.store.versions.delete(version)

    assert quick.client.delete(f"/models/{version}").status_code == 200

    assert list((quick.settings.data_dir / "versions").iterdir()) == []


def _unpacked(content: bytes, folder: Path) -> Path:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(folder, filter="data")
    (only,) = folder.iterdir()
    return only


def test_downloaded_delta_is_the_published_folder_byte_for_byte(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = published(quick, small_clip, tmp_path)
    folder = quick.settings.data_dir / "versions" / version

    answer = quick.client.get(f"/models/{version}/download")

    assert answer.headers["Content-Type"] == "application/x-tar"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    unpacked = _unpacked(answer.content, tmp_path / "unpacked")
    assert unpacked.name == f"sds-clip-{version[:12]}"
    assert {file.name: file.read_bytes() for file in unpacked.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


def test_downloaded_whole_weights_load_by_themselves_as_the_same_version(
    quick: Service, small_clip: Clip, tmp_path: Path
) -> None:
    version = published(quick, small_clip, tmp_path)

    answer = quick.client.get(f"/models/{version}/download", params={"weights": "full"})

    unpacked = _unpacked(answer.content, tmp_path / "unpacked")
    assert (unpacked / "open_clip_config.json").exists()
    assert load_clip(f"local-dir:{unpacked}", device="cpu", precision="float32").version == version
    assert list((quick.settings.data_dir / "exports").iterdir()) == []
