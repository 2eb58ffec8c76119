"""Names of jobs and data sets, in each place that takes an id."""

import pytest

from sds_clip.app.edge import auth
from tests.app.jobs.conftest import Service, error_of


def test_names_stand_for_ids_in_jobs_and_their_rows_have_the_ids(service: Service) -> None:
    ids = {
        name: service.ready_dataset(format, name=name)
        for name, format in (("train", "pairs"), ("val.1", "pairs"), ("wino", "winoground"))
    }
    named = {
        "training_data": "train",
        "validation_data": "val.1",
        "evaluate": [{"benchmark": "winoground", "data": "wino"}],
    }

    job = service.finetune(name="first", **named)

    assert job["name"] == "first"
    assert (job["training_data"], job["validation_data"]) == (ids["train"], ids["val.1"])
    assert job["evaluate"] == [{"benchmark": "winoground", "data": ids["wino"]}]
    assert error_of(service.client.delete("/datasets/wino"), 409)["code"] == "in_use"
    body = {"model": "demo", "benchmark": "winoground", "data": "wino"}
    assert service.client.post("/evaluate", json=body).json()["data"] == ids["wino"]
    body["data"] = "none"
    assert error_of(service.client.post("/evaluate", json=body), 422)["param"] == "data"


def test_every_route_with_an_id_takes_the_name(service: Service) -> None:
    dataset = service.ready_dataset(name="train")
    job = service.finetune(name="first", training_data=dataset)["id"]
    paths = [
        (method, path)
        for path, methods, _ in auth.declared(service.client.app)  # type: ignore[arg-type]
        for method in sorted(methods - {"HEAD"})
        if "{job_id}" in path or "{dataset_id}" in path
    ]
    assert len(paths) == 19
    # What deletes or changes comes last.
    for method, path in sorted(paths, key=lambda each: (each[0] != "GET", "dataset" in each[1])):
        by_id = service.client.request(method, path.format(job_id=job, dataset_id=dataset, index=0, n=0))
        by_name = service.client.request(
            method, path.format(job_id="first", dataset_id="train", index=0, n=0)
        )
        codes = [by_name.status_code, by_id.status_code]
        assert "not_found" not in by_id.text
        if path == "/datasets/{dataset_id}" and method == "DELETE":  # a deleted data set has no name
            assert codes in ([404, 200], [409, 409])
        else:
            assert codes[0] == codes[1], (method, path)
    for path, name in (("/jobs", "first"), ("/datasets", "train")):
        assert service.client.get(path, params={"after": name}).json()["data"] == []


def test_a_name_that_is_taken_is_a_conflict_and_its_replay_is_none(service: Service) -> None:
    dataset = service.ready_dataset(name="train")
    request = service.request(name="first", training_data=dataset)
    headers = {"Idempotency-Key": "k"}
    first = service.client.post("/finetune", json=request, headers=headers).json()

    taken = error_of(service.client.post("/finetune", json=request), 409)

    assert (taken["code"], taken["param"]) == ("name_taken", "name")
    assert first["id"] in taken["message"]
    assert service.client.post("/finetune", json=request, headers=headers).json()["id"] == first["id"]
    form = {"name": "train", "format": "pairs"}
    upload = service.client.post("/datasets", data=form, files={"file": ("a.tar", b"")})
    assert error_of(upload, 409)["code"] == "name_taken"


@pytest.mark.parametrize("name", ["job_1", "ds_1", "", "a b", "a/b", "-a", "x" * 65, "é"])
def test_what_may_be_taken_for_an_id_or_a_path_is_no_name(refusing: Service, name: str) -> None:
    job = refusing.submit(name=name)
    form = {"name": name, "format": "pairs"}
    upload = refusing.client.post("/datasets", data=form, files={"file": ("a.tar", b"")})
    assert error_of(job, 422)["param"] == error_of(upload, 422)["param"] == "name"
