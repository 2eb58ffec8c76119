"""Shows 200 tenants on one process: each has a version and an alias of its own, and asks for nothing else.

The versions are LayerNorm deltas over the demo base, moved by noise from seeds: what is shown is that they are served,
not that they are better. 200 clients send /match without pauses: first all for one version, then each with the alias of
its tenant, which points to the tenant's version, and at last while aliases are rolled back to the base and promoted
again, at random. Every answer's scores are compared with those of the version that it names, computed here, and that
version must be the base or the tenant's own.
"""

import asyncio
import json
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import torch

from bench import report, servers
from bench.load import Call, open_session, run_in_loop
from bench.options import cache_option, option, parse
from bench.report import at_least, at_most, note
from bench.sets import make_images
from bench.version_set import make_version_set, moved_versions
from sds_clip.models.checkpoints import load_clip
from sds_clip.models.clip import Clip
from sds_clip.models.images import ImageLimits, decode_image
from sds_clip.models.markdown import markdown_table
from sds_clip.models.mixed import as_member

TEXTS = ("a red square left of a blue circle", "a blue circle left of a red square")
CLOSE = 1e-3
"""The bound on the difference of two scores. Versions differ by more."""


@dataclass(frozen=True)
class Plan:
    """How much is shown."""

    tenants: int = option(200, "Number of tenants, versions, aliases and clients.", quick=8)
    seconds: float = option(60.0, "Number of seconds of each phase.", quick=3.0)
    moves_per_s: float = option(5.0, "Promotions and rollbacks in a second.")
    cache: Path = cache_option()

    @property
    def folder(self) -> Path:
        return self.cache / "tenants"


@dataclass
class Phase:
    """What the clients got, and how many aliases were moved."""

    seconds: float = 0.0
    answers: int = 0
    failures: int = 0
    of_another: int = 0
    """Answers whose version is not the tenant's, or whose scores are not the version's."""
    of_own: int = 0
    """Answers of the tenant's own version, and not of the base."""
    moves: int = 0


def main(arguments: list[str] | None = None) -> None:
    plan = parse(Plan, "bench.tenants", __doc__, arguments)
    heading = report.heading("bench.tenants", arguments)
    versions = make_version_set(plan.folder, "demo", plan.tenants)
    image = make_images(plan.cache / "images", 64)[0]
    note("the scores of each version, computed here")
    expected = scores_of_each(plan.tenants, image)
    base = next(iter(expected))
    shutil.rmtree(plan.folder / "state", ignore_errors=True)
    server = servers.sds_clip("tenants", "serve", "--model", "demo", "--precision", "float32")
    with servers.running(
        server,
        plan.cache,
        SDS_CLIP_DATABASE_URL=f"sqlite:///{plan.folder / 'sds-clip.db'}",
        SDS_CLIP_DATA_DIR=str(plan.folder / "data"),
        SDS_CLIP_STATE_DIR=str(plan.folder / "state"),
    ) as running:
        show = Show(plan, running.port, base, versions, expected, image)
        note("every tenant's alias is promoted to the base, and then to the tenant's version")
        run_in_loop(Show.prepare, show)
        note("all clients ask for one version")
        one = run_in_loop(Show.ask_one, show)
        note("each client asks for its own")
        own = run_in_loop(Show.ask_own, show)
        note("each client asks for its own, while aliases are moved")
        moving = run_in_loop(Show.ask_moving, show)
    rows = [
        [
            name,
            f"{phase.answers / phase.seconds:.0f}",
            phase.answers,
            phase.failures,
            phase.of_another,
            phase.of_own,
            phase.moves,
        ]
        for name, phase in (
            ("one version", one),
            ("each its own", own),
            ("each its own, while aliases are moved", moving),
        )
    ]
    columns = (
        "the clients ask for",
        "requests/s",
        "answers",
        "failures",
        "of another version",
        "of the tenant's version",
        "moves",
    )
    ratio = (own.answers / own.seconds) / (one.answers / one.seconds)
    report.show(
        f"{heading}\n{report.versions(report.SERVICE)}. The demo base; {plan.tenants} tenants and clients.",
        markdown_table(columns, rows, text=(0,)),
        targets=[
            at_most("failed requests", sum(phase.failures for phase in (one, own, moving)), 0),
            at_most("answers of another's version", sum(phase.of_another for phase in (one, own, moving)), 0),
            at_least("promotions and rollbacks", moving.moves, plan.seconds),
            at_least("throughput over one version's", ratio, 0.9),
        ],
    )


def scores_of_each(count: int, image: Path) -> dict[str, list[float]]:
    """The scores of the base and of each version."""
    base = load_clip("demo", device="cpu", precision="float32")
    clips = [as_member(base), *(clip for clip, _ in moved_versions(base, count))]
    pixels = base.preprocess(decode_image(image.read_bytes(), ImageLimits()))[None]
    return {clip.version: scores_of(clip, pixels) for clip in clips}


def scores_of(clip: Clip, pixels: torch.Tensor) -> list[float]:
    scores: list[float] = (clip.encode_image(pixels) @ clip.encode_text(clip.tokenizer(list(TEXTS))).T)[
        0
    ].tolist()
    return scores


class Show:
    """The clients, and who moves the aliases."""

    def __init__(
        self,
        plan: Plan,
        port: int,
        base: str,
        versions: Sequence[str],
        expected: dict[str, list[float]],
        image: Path,
    ) -> None:
        self._plan = plan
        self._port = port
        self._base = base
        self._versions = versions
        self._expected = expected
        self._image = str(image)

    async def prepare(self) -> None:
        async with open_session(self._port, 4) as session:
            for tenant in range(self._plan.tenants):
                await self._move(session, tenant, self._base)
            await self._until_served(session, [self._base] * self._plan.tenants)
            for tenant, version in enumerate(self._versions):
                await self._move(session, tenant, version)
            await self._until_served(session, self._versions)

    async def ask_one(self) -> Phase:
        first = self._versions[0]
        return await self._phase([first] * self._plan.tenants, [{first}] * self._plan.tenants)

    async def ask_own(self) -> Phase:
        return await self._phase(self._aliases, [{version} for version in self._versions])

    async def ask_moving(self) -> Phase:
        allowed = [{self._base, version} for version in self._versions]
        return await self._phase(self._aliases, allowed, moving=True)

    @property
    def _aliases(self) -> list[str]:
        return [alias_of(tenant) for tenant in range(self._plan.tenants)]

    async def _phase(
        self, models: Sequence[str], allowed: Sequence[set[str]], *, moving: bool = False
    ) -> Phase:
        """Each tenant asks for its model, and any of the allowed versions may answer."""
        phase = Phase()
        async with open_session(self._port, self._plan.tenants + 4) as session:
            for tenant in {model: tenant for tenant, model in enumerate(models)}.values():
                await self._ask(session, tenant, models[tenant], Phase(), allowed[tenant])
            started = time.monotonic()
            end = started + self._plan.seconds

            async def client(tenant: int) -> None:
                while time.monotonic() < end:
                    await self._ask(session, tenant, models[tenant], phase, allowed[tenant])

            async with asyncio.TaskGroup() as tasks:
                for tenant in range(self._plan.tenants):
                    tasks.create_task(client(tenant))
                if moving:
                    tasks.create_task(self._move_at_random(session, end, phase))
            phase.seconds = time.monotonic() - started
        return phase

    async def _ask(
        self, session: aiohttp.ClientSession, tenant: int, model: str, phase: Phase, allowed: set[str]
    ) -> None:
        call = Call("match", "/match", json.dumps({"model": model, "images": ["@IMAGE@"], "texts": TEXTS}))
        async with session.post(call.path, data=call.filled(self._image)) as response:
            answer = await response.json()
        if response.status != 200:
            phase.failures += 1
            note(f"tenant {tenant}: {response.status} {json.dumps(answer)[:300]}")
            return
        phase.answers += 1
        version, scores = answer["model"]["version"], answer["results"][0]["scores"]
        is_right = version in allowed and all(
            abs(ours - theirs) < CLOSE for ours, theirs in zip(scores, self._expected[version], strict=True)
        )
        phase.of_another += not is_right
        phase.of_own += version != self._base

    async def _move_at_random(self, session: aiohttp.ClientSession, end: float, phase: Phase) -> None:
        chance, promoted = random.Random(0), set(range(self._plan.tenants))
        while time.monotonic() < end:
            tenant = chance.randrange(self._plan.tenants)
            if tenant in promoted:
                path, body = f"/models/{alias_of(tenant)}/rollback", {"reason": "the show"}
                await self._post(session, path, body)
            else:
                await self._move(session, tenant, self._versions[tenant])
            promoted ^= {tenant}
            phase.moves += 1
            await asyncio.sleep(1 / self._plan.moves_per_s)

    async def _move(self, session: aiohttp.ClientSession, tenant: int, version: str) -> None:
        await self._post(
            session,
            f"/models/{version}/promote",
            {"alias": alias_of(tenant), "reason": "the show", "force": True},
        )

    async def _post(self, session: aiohttp.ClientSession, path: str, body: Mapping[str, object]) -> None:
        async with session.post(path, data=json.dumps(body)) as response:
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status} {(await response.text())[:300]}")

    async def _until_served(self, session: aiohttp.ClientSession, versions: Sequence[str]) -> None:
        """Wait until each tenant's alias serves the version."""
        wanted = {alias_of(tenant): version for tenant, version in enumerate(versions)}
        async with asyncio.timeout(120):
            while True:
                async with session.get("/models/status") as response:
                    models = (await response.json())["processes"][0]["models"]
                served = {model["name"]: model["version"] for model in models}
                if wanted.items() <= served.items():
                    return
                await asyncio.sleep(0.2)


def alias_of(tenant: int) -> str:
    return f"tenant-{tenant}"


if __name__ == "__main__":
    main()
