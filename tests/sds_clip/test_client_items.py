"""Samples, items, pictures and comparisons, as the client asks for them."""

import asyncio
import json

import pytest

from sds_clip import AsyncClient, Client
from tests.sds_clip.scripted import Answer, scripted


def page(*indices: int, has_more: bool) -> Answer:
    return Answer(body=json.dumps({"data": [{"index": k} for k in indices], "has_more": has_more}).encode())


def space_as_plus(path: str) -> str:
    """httpx before 0.28 writes it as %20."""
    return path.replace("%20", "+")


JOB = Answer(body=json.dumps({"id": "job_1", "kind": "evaluate", "status": "succeeded"}).encode())


def test_samples_are_read_page_by_page_by_their_index() -> None:
    with scripted(page(0, 1, has_more=True), page(2, has_more=False)) as server, Client(server.url) as client:
        assert client.samples("my data", limit=5) == [{"index": 0}, {"index": 1}, {"index": 2}]
        assert [asked.path for asked in server.asked] == [
            "/datasets/my%20data/samples?limit=5",
            "/datasets/my%20data/samples?after=1&limit=3",
        ]


def test_items_are_filtered_and_compared_with_another_job() -> None:
    script = (JOB, page(3, has_more=False), Answer(body=b'{"object": "comparison"}'), page(has_more=False))

    async def asked(url: str) -> list[object]:
        async with AsyncClient(url) as client:
            job = await client.job("job_1")
            found = await job.items(other="before", flip="right_to_wrong", tag="a b")
            return [found, await job.compare("before"), await job.items(limit=1)]

    with scripted(*script) as server:
        assert asyncio.run(asked(server.url)) == [[{"index": 3}], {"object": "comparison"}, []]
        assert [space_as_plus(each.path) for each in server.asked[1:]] == [
            "/jobs/job_1/items?limit=20&with=before&flip=right_to_wrong&tag=a+b",
            "/jobs/job_1/comparison?with=before",
            "/jobs/job_1/items?limit=1",
        ]


def test_what_a_fine_tuning_job_has_measured_is_chosen_by_its_name() -> None:
    name, query = "retrieval (ds_1)", "on=retrieval+%28ds_1%29"
    script = (JOB, page(0, has_more=False), Answer(body=b'{"object": "comparison"}'))
    with scripted(*script) as server, Client(server.url) as client:
        job = client.job("job_1")
        assert job.items(on=name) == [{"index": 0}]
        assert job.compare("control", on=name) == {"object": "comparison"}
        assert [space_as_plus(each.path) for each in server.asked[1:]] == [
            f"/jobs/job_1/items?limit=20&{query}",
            f"/jobs/job_1/comparison?with=control&{query}",
        ]


def test_picture_is_fetched_from_the_service_and_from_nowhere_else() -> None:
    with scripted(Answer(body=b"png")) as server, Client(server.url) as client:
        assert client.picture("/datasets/ds_1/samples/0/images/0", max_side=64) == b"png"
        assert server.asked[0].path == "/datasets/ds_1/samples/0/images/0?max_side=64"
        for wrong in ("http://example.org/a.png", "//example.org/a.png", "a.png"):
            with pytest.raises(ValueError, match="not the path of a picture"):
                client.picture(wrong)
        assert len(server.asked) == 1
