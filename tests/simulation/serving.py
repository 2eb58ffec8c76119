"""A serving process: the real swapper, its state on disk and its models, on an event loop of the schedule's threads.

What a version computes is left out: its weights are the version's id.
"""

import asyncio
import selectors
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from sds_clip.app.errors import ServiceError, StoreUnavailable
from sds_clip.app.registry.local_state import LocalState
from sds_clip.app.registry.manifest import verify
from sds_clip.app.registry.store_source import find_version
from sds_clip.app.serving.aliases import FollowedAliases, Following
from sds_clip.app.serving.served_models import ServedModels
from sds_clip.app.serving.swap import Swapper
from sds_clip.app.threads import in_own_thread
from sds_clip.models.errors import ModelError
from tests.simulation.actors import ALIASES, World
from tests.simulation.scheduler import Event, Process

POLL_S = 20.0


class _Waiting(selectors.BaseSelector):
    """Waits for no files, but for the loop's next call, while the other threads go on."""

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout > 0:
            asyncio._set_running_loop(None)  # another loop of this thread may run meanwhile
            self._loop.called.wait(timeout)
            asyncio._set_running_loop(self._loop)
        self._loop.called.clear()
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> Any: ...
    def unregister(self, fileobj: Any) -> Any: ...
    def get_map(self) -> Mapping[Any, Any]:
        return {}


class Loop(asyncio.BaseEventLoop):
    """An event loop whose time is the schedule's."""

    def __init__(self) -> None:
        super().__init__()
        self.called = Event()
        self._selector = _Waiting(self)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self.called._scheduler.now

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None:
        self.called.set()


class Loader:
    """Stands for `sds_clip.app.serving.loading.VersionLoader`: finds a version, and verifies its files."""

    def __init__(self, world: World, state: LocalState) -> None:
        self._world = world
        self._state = state

    async def load(self, version: str, *, by_alias: bool) -> Any:
        await in_own_thread(partial(self._read, version), "load")
        return _clip(version)

    def _read(self, version: str) -> None:
        remembered = self._state.location(version)
        try:
            found = find_version(self._world.store, self._world.config.data_dir, version)
        except StoreUnavailable:
            found = None
        if found is not None:
            self._state.note_location(version, found)
        found = found or remembered
        if found is None:
            raise ModelError(f"There is no version {version}.")
        self._world.scheduler.sleep(self._world.choices.pick((0.5, 4.0, 30.0)))  # it reads the weights
        if isinstance(found, Path):
            verify(found, version)


def _clip(version: str) -> Any:
    return SimpleNamespace(version=version, precision="float32")


async def _prepare(model: object, current: object, *, timeout_s: float) -> None: ...


CLASSES: Any = SimpleNamespace(prepare=_prepare, give_up_all_but=lambda keys: None)


def serve(world: World, name: str, process: Process) -> None:
    """Follow the aliases, and answer requests, until the process ends."""
    state = LocalState(world.config.data_dir / "state" / name)
    process.at_end.append(state.close)
    aliases = FollowedAliases()
    models = ServedModels({"demo": _clip(world.ledger.base)}, aliases)
    following = Following(world.store.aliases.ever, aliases, state)
    metrics: Any = SimpleNamespace(registry=CollectorRegistry())
    swapper = Swapper(models, following, Loader(world, state), CLASSES, metrics)  # type: ignore[arg-type]
    served[name] = models
    loop = Loop()
    process.start(partial(_answer, world, name, models))
    try:
        loop.run_until_complete(_follow(swapper))
    finally:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()


served: dict[str, ServedModels] = {}
"""What each serving process has in service."""


async def _follow(swapper: Swapper) -> None:
    await swapper.start()
    await asyncio.Event().wait()


def _answer(world: World, name: str, models: ServedModels) -> None:
    """Answer a request for each alias now and then, with the model that is taken at its beginning."""
    while True:
        for alias in ALIASES:
            try:
                model = models.resolve(alias)
            except ServiceError:
                continue
            world.ledger.answers(name, alias, model.info.name, model.info.version, model.info.generation)
        world.scheduler.sleep(3.0)


def has_caught_up(world: World) -> bool:
    """Whether each process serves what the aliases point to, and nothing else."""
    for models in served.values():
        for alias in world.ledger.tables["aliases"].values():
            try:
                model = models.resolve(alias["name"])
            except ServiceError:
                if alias["removed_at"] is None:
                    return False
            else:
                if (model.info.version, model.generation) != (alias["version"], alias["generation"]):
                    return False
    return True
