"""Two real server processes under load while their alias moves: no request fails and no answer mixes versions."""

import asyncio
import itertools
import signal
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx

from sds_clip.models.clip.model import Clip
from tests.app.serverside import RunningServer, running_server
from tests.app.serving.file_aliases import FileAliases
from tests.app.serving.swapping import CLASSIFY, EMBED, MATCH, Library, assert_of_its_version, make_library
from tests.worker.waiting import until

SERVE = """
import sys
from functools import partial
from pathlib import Path
from sds_clip.app.main import run
from sds_clip.app.registry.source import FileReports, Registry, find_folder
from sds_clip.app.settings import Settings
from tests.app.serving.file_aliases import FileAliases

_, port, folder = sys.argv[1:]
folder = Path(folder)
registry = Registry(
    partial(find_folder, folder / "versions"),
    FileAliases(folder / "aliases.json").read,
    FileReports(folder / "reports"),
)
run(Settings(port=int(port)), registry)
"""
VERBS = (("/match", MATCH), ("/classify", CLASSIFY), ("/embed", EMBED))


def swapping_server(folder: Path, name: str, reference: str) -> AbstractContextManager[RunningServer]:
    """A server over the aliases and versions in a folder that several share."""
    (folder / name).mkdir()
    environment = {
        "SDS_CLIP_MODELS": reference,
        "SDS_CLIP_PRECISION": "float32",
        "SDS_CLIP_SWAP_POLL_S": "0.05",
    }
    return running_server(folder / name, str(folder), code=SERVE, **environment)


async def ask_until(stop: asyncio.Event, url: str, answers: list[dict[str, Any]]) -> None:
    """One client: each verb in turn on one connection; anything but a 200 ends the test."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for path, body in itertools.cycle(VERBS):
            if stop.is_set():
                return
            answer = await client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            answers.append(answer.json())


async def versions_served(client: httpx.AsyncClient, url: str) -> list[str | None]:
    """What each process that is known serves as default, the one at `url` first."""
    processes = (await client.get(f"{url}/models/status")).json()["processes"]
    return [
        next((model["version"] for model in process["models"] if model["name"] == "default"), None)
        for process in processes
    ]


async def until_all_serve(version: str, *urls: str) -> None:
    async with asyncio.timeout(60), httpx.AsyncClient(timeout=60) as client:
        for url in urls:
            while (await versions_served(client, url))[0] != version:
                await asyncio.sleep(0.02)


def test_swaps_under_load_fail_no_request_and_mix_no_answer(
    small_clip: Clip, small_reference: str, tmp_path: Path
) -> None:
    library: Library = make_library(tmp_path / "versions", small_clip, tmp_path, 3)
    aliases = FileAliases(tmp_path / "aliases.json")
    answers: list[dict[str, Any]] = []

    async def scenario(one: RunningServer, two: RunningServer) -> None:
        stop = asyncio.Event()
        clients = [
            asyncio.create_task(ask_until(stop, server.url, answers))
            for server in (one, two)
            for _ in range(3)
        ]
        for number in range(9):
            version = library.published[number % 3]
            aliases.point("default", version)
            await until_all_serve(version, one.url, two.url)
        aliases.roll_back("default")
        await until_all_serve(library.published[1], one.url, two.url)
        stop.set()
        await asyncio.gather(*clients)

    def both_are_told(server: RunningServer) -> bool:
        processes = httpx.get(f"{server.url}/models/status").json()["processes"]
        served = [
            {model["name"]: (model["version"], model["generation"]) for model in process["models"]}
            for process in processes
        ]
        return [each.get("default") for each in served] == [(library.published[1], 10)] * 2

    with (
        swapping_server(tmp_path, "one", small_reference) as one,
        swapping_server(tmp_path, "two", small_reference) as two,
    ):
        asyncio.run(scenario(one, two))
        until(lambda: both_are_told(one), 30)
        # One that is killed while it loads harms neither the other nor what is published.
        aliases.point("default", library.published[2])
        two.process.send_signal(signal.SIGKILL)
        asyncio.run(until_all_serve(library.published[2], one.url))
        assert "Traceback" not in one.log.read_text()

    assert {answer["model"]["version"] for answer in answers} >= set(library.published)
    for answer in answers:
        assert_of_its_version(answer, library)
