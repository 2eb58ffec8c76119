"""The same submission twice: one job, whatever happened in between."""

from concurrent.futures import ThreadPoolExecutor

from tests.app.jobs.conftest import Service, error_of
from tests.databases import on_both

KEY = {"Idempotency-Key": "3f1c-42"}


def test_second_request_with_the_same_key_gets_the_first_ones_job(service: Service) -> None:
    body = service.request()

    first = service.client.post("/finetune", json=body, headers=KEY)
    second = service.client.post("/finetune", json=body, headers=KEY)

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["id"] == second.json()["id"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Location"] == first.headers["Location"]
    assert len(service.client.get("/jobs").json()["data"]) == 1


def test_replay_holds_when_the_data_set_is_gone(service: Service) -> None:
    body = service.request()
    job = service.client.post("/finetune", json=body, headers=KEY).json()
    service.client.post(f"/jobs/{job['id']}/cancel")
    assert service.client.delete(f"/datasets/{body['training_data']}").status_code == 200

    assert service.client.post("/finetune", json=body, headers=KEY).json()["id"] == job["id"]
    error_of(service.client.post("/finetune", json=body), 422)


@on_both
def test_many_at_once_make_one_job(service: Service) -> None:
    body = service.request()

    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: service.client.post("/finetune", json=body, headers=KEY), range(8))
        )

    # While the first is being worked on, the others may also be told so.
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert len(service.client.get("/jobs").json()["data"]) == 1
