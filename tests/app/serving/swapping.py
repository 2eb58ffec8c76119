"""A service whose aliases can be moved, and every version's own answers to compare with."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from inspect import isawaitable
from pathlib import Path
from typing import Any

import httpx
import torch
from torch import Tensor

from sds_clip.app.main import create_app
from sds_clip.app.registry.publish import publish
from sds_clip.app.registry.source import FileReports, Registry, WeightsLocation, find_folder, folders_begun
from sds_clip.app.store.records import Alias
from sds_clip.models.checkpoints.load import load_clip
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.scoring import match
from sds_clip.models.images.decode import ImageLimits, decode_image
from tests.app.changed import changed
from tests.app.conftest import base64_of, png
from tests.app.serving.file_aliases import FileAliases
from tests.deltas import save_lora, save_tuned

IMAGES = [png(40, 30, seed=1), png(31, 77, seed=2)]
TEXTS = ["a red circle", "a blue square", "two dogs under a table"]
LABELS = ["circle", "square", "star"]
MATCH = {"images": [base64_of(image) for image in IMAGES], "texts": TEXTS}
CLASSIFY = {"images": MATCH["images"], "labels": LABELS, "templates": ["a {}."], "top_k": len(LABELS)}
EMBED = {"texts": TEXTS}


@dataclass(frozen=True)
class Library:
    """Published versions under one root, and each of them loaded by itself, by its version."""

    root: Path
    base: Clip
    clips: dict[str, Clip]

    @property
    def published(self) -> list[str]:
        """The versions but the base, in the order that they were published."""
        return [version for version in self.clips if version != self.base.version]


def make_library(root: Path, base: Clip, scratch: Path, count: int) -> Library:
    """Publish so many deltas over a base."""
    clips = {base.version: base}
    for seed in range(count):
        published = publish_tuned(root, base, scratch / f"delta-{seed}", seed=seed)
        clips[published] = load_clip(str(root / published), device="cpu", precision="float32")
    return Library(root, base, clips)


def publish_tuned(root: Path, base: Clip, scratch: Path, *, seed: int, job: str = "job_1") -> str:
    """Publish a delta: of LoRA with the seed 1, and of LayerNorms with another one."""
    save = save_lora if seed == 1 else save_tuned
    return publish(save(scratch, base, seed=seed), root, job=job, fence=1, base=base).version


class Versions:
    """Versions in a folder, in the order that they were looked for; `gate` holds the looking up, or that of `held`."""

    def __init__(self, root: Path, held: Collection[str] | None = None) -> None:
        self._root = root
        self._held = held
        self.found: list[str] = []
        self.gate = threading.Event()
        self.gate.set()

    def find(self, version: str) -> Path | None:
        self.found.append(version)
        if self._held is None or version in self._held:
            assert self.gate.wait(30)
        return find_folder(self._root, version)


def flip_a_byte(file: Path) -> None:
    """In the file itself, so that every link to it has it too."""
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        (last,) = opened.read(1)
        opened.seek(-1, os.SEEK_END)
        opened.write(bytes([last ^ 1]))


async def until(happened: Callable[[], Any]) -> Any:
    """Wait until something is so, and return what it is; fails after a time that only a hang takes."""
    async with asyncio.timeout(60):
        while True:
            found = happened()
            if isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


class Service:
    """The service in this process, asked as a client asks it."""

    def __init__(self, client: httpx.AsyncClient, aliases: FileAliases) -> None:
        self.client = client
        self.aliases = aliases

    async def ask(self, path: str, body: dict[str, Any], **fields: Any) -> dict[str, Any]:
        answer = await self.client.post(path, json={**body, **fields})
        assert answer.status_code == 200, answer.text
        content: dict[str, Any] = answer.json()
        return content

    async def version(self, **fields: Any) -> str:
        """The version that answers."""
        return str((await self.ask("/match", MATCH, **fields))["model"]["version"])

    async def status(self) -> dict[str, Any]:
        content = (await self.client.get("/models/status")).json()
        process: dict[str, Any] = content["processes"][0]
        return process

    async def name_status(self, name: str) -> dict[str, Any]:
        return next(model for model in (await self.status())["models"] if model["name"] == name)

    async def until(
        self, is_so: Callable[[dict[str, Any]], bool], *, name: str = "default"
    ) -> dict[str, Any]:
        """Wait until the status of a name is as wanted."""

        async def found() -> dict[str, Any] | None:
            models: list[dict[str, Any]] = (await self.status())["models"]
            return next((model for model in models if model["name"] == name and is_so(model)), None)

        status: dict[str, Any] = await until(found)
        return status

    async def until_aliases(self, **wanted: Any) -> dict[str, Any]:
        """Wait until what is said of the aliases is so."""

        async def found() -> dict[str, Any] | None:
            aliases: dict[str, Any] = (await self.status())["aliases"]
            return aliases if wanted.items() <= aliases.items() else None

        aliases: dict[str, Any] = await until(found)
        return aliases

    async def until_served(self, version: str, *, name: str = "default") -> dict[str, Any]:
        return await self.until(lambda model: model["version"] == version, name=name)

    async def until_failed(self) -> dict[str, Any]:
        return await self.until(lambda model: model["last_failed_load"] is not None)

    async def promote(self, *versions: str, name: str = "default") -> None:
        """Point an alias at versions one after the other, and wait for each."""
        for version in versions:
            self.aliases.point(name, version)
            await self.until_served(version, name=name)

    async def names(self) -> set[str]:
        """Those under which something is served, or is to be."""
        return {model["name"] for model in (await self.status())["models"]}

    async def lacks(self, name: str) -> bool:
        return name not in await self.names()

    async def is_ready(self) -> bool:
        return (await self.client.get("/ready")).status_code == 200

    async def error(self, **fields: Any) -> dict[str, Any]:
        """The error of a /match that is refused, with its status and the seconds after which to come back."""
        answer = await self.client.post("/match", json={**MATCH, **fields})
        come_back_s = int(answer.headers.get("Retry-After", 0))
        return {"status": answer.status_code, "come_back_s": come_back_s, **answer.json()["error"]}

    async def refusal(self, **fields: Any) -> tuple[int, str]:
        """Its status and its code; with a 503, and with nothing else, comes the time after which to come back."""
        error = await self.error(**fields)
        assert (error["come_back_s"] >= 1) == (error["status"] == 503), error
        return error["status"], error["code"]

    async def answers(self, **fields: Any) -> bool:
        return (await self.client.post("/match", json={**MATCH, **fields})).is_success

    async def compare(
        self, models: Sequence[str], path: str = "/match", body: dict[str, Any] = MATCH
    ) -> list[dict[str, Any]]:
        """What each of several models answers."""
        answers: list[dict[str, Any]] = (await self.ask(f"{path}/compare", body, models=models))["answers"]
        return answers


@asynccontextmanager
async def serving(
    folder: Path,
    clips: Iterable[Clip],
    *,
    root: Path | None = None,
    find_version: Callable[[str], WeightsLocation | None] | None = None,
    read_aliases: Callable[[], Sequence[Alias]] | None = None,
    begun: Callable[[str, str | None], Sequence[str]] | None = None,
    reports: FileReports | None = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    """The whole service with its poller, over ASGI."""
    aliases = FileAliases(folder / "aliases.json")
    registry = Registry(
        find_version or partial(find_folder, root or folder / "versions"),
        read_aliases or aliases.read,
        reports,
        begun=begun or (lambda prefix, owner: folders_begun(root or folder / "versions", prefix)),
    )
    options = {"data_dir": folder / "data", "swap_poll_s": 0.02, "threads": 1, "precision": "float32"}
    with changed(**{**options, "device": "cpu", **settings}) as values:
        served = {f"small{number or ''}": clip for number, clip in enumerate(clips)}
        app = create_app(values, served, registry)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client,
        ):
            yield Service(client, aliases)


@cache
def own_numbers(clip: Clip, kind: str) -> Tensor:
    """What a version says of the images and texts above, computed without the service."""
    if kind == "embedding":
        return clip.encode_text(clip.tokenizer(TEXTS))
    texts = TEXTS if kind == "scores" else [f"a {label}." for label in LABELS]
    pixels = torch.stack([clip.preprocess(decode_image(image, ImageLimits())) for image in IMAGES])
    images, encoded = clip.encode_image(pixels), clip.encode_text(clip.tokenizer(texts))
    return match(images, encoded, logit_scale=clip.logit_scale, logit_bias=clip.logit_bias).scores


def assert_of_its_version(answer: dict[str, Any], library: Library) -> None:
    """Every number of a /match, /classify or /embed answer is the stated version's own, and no other's."""
    kind = next(kind for kind in ("scores", "embedding", "predictions") if kind in answer["results"][0])
    rows = [result[kind] for result in answer["results"]]
    if kind == "predictions":
        rows = [[found["score"] for found in sorted(row, key=lambda found: found["index"])] for row in rows]
    stated = library.clips[answer["model"]["version"]]
    got = torch.tensor(rows)
    torch.testing.assert_close(got, own_numbers(stated, kind), atol=1e-4, rtol=0)
    others = [clip for clip in library.clips.values() if clip is not stated]
    assert all((got - own_numbers(other, kind)).abs().max() > 1e-3 for other in others)


def metric(text: str, name: str) -> float:
    """One line of Prometheus's text."""
    return next(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))
