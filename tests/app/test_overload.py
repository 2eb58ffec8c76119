"""A real server that gets more requests than its queue has room for."""

import asyncio
from pathlib import Path

import httpx

from sds_clip.app.settings import MAX_TEXTS
from tests.app.conftest import base64_of, png
from tests.app.serverside import running_server

CLIENTS = 32
TEXTS_EACH = 128


def test_full_queue_refuses_with_a_time_to_come_back_and_answers_all_that_it_has_accepted(
    small_reference: str, tmp_path: Path
) -> None:
    async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
        texts = [f"text {number} {each}" for each in range(TEXTS_EACH)]
        return await client.post("/match", json={"images": [base64_of(png(seed=1))], "texts": texts})

    async def ask_all(url: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            answers = await asyncio.gather(*(ask(client, number) for number in range(CLIENTS)))
            refused = [answer for answer in answers if answer.status_code == httpx.codes.TOO_MANY_REQUESTS]
            assert refused
            await asyncio.sleep(max(int(answer.headers["Retry-After"]) for answer in refused))
            assert (await ask(client, CLIENTS)).status_code == httpx.codes.OK
            return answers

    settings = {"SDS_CLIP_MAX_IMAGES": "1", "SDS_CLIP_MAX_QUEUE": str(1 + MAX_TEXTS)}
    with running_server(tmp_path, "--model", small_reference, **settings) as server:
        answers = asyncio.run(ask_all(server.url))
    assert {answer.status_code for answer in answers} == {httpx.codes.OK, httpx.codes.TOO_MANY_REQUESTS}
    for answer in answers:
        if answer.is_success:
            assert len(answer.json()["results"][0]["scores"]) == TEXTS_EACH
        else:
            assert answer.json()["error"]["code"] == "overloaded"
