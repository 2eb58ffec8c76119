"""Follows a move of an alias until every serving process serves it, or says that it cannot.

The process through which the alias was moved reads it at once, and the others at their next look (`swap_poll_s`). Each
process reports what it serves (app/serving/status.py). One that has ended is not waited for.
"""

import asyncio
import time

from sds_clip.app.schemas.rollout import MovedAlias, ProcessRollout, RolloutState
from sds_clip.app.schemas.versions import AliasInfo
from sds_clip.app.serving.engine import Engine
from sds_clip.app.serving.status import LOOK_EVERY_S, StatusBoard
from sds_clip.app.serving.swap import Swapper


class Rollout:
    """Waits for moves of aliases. `swapper` is None in a process that follows no aliases."""

    def __init__(self, board: StatusBoard, swapper: Swapper | None, engine: Engine) -> None:
        self._board = board
        self._swapper = swapper
        self._engine = engine

    def look_now(self) -> None:
        """Let this process read the aliases at once, because one was changed through it."""
        if self._swapper is not None:
            self._swapper.look_now()

    async def follow(self, alias: AliasInfo, wait_s: float) -> MovedAlias:
        """Wait until no live process is behind the alias, for `wait_s` at most.

        The wait ends early if this process is about to end.
        """
        self.look_now()
        if wait_s == 0:
            return MovedAlias(**alias.model_dump(), served_by_all=None, processes=None)
        deadline = time.monotonic() + wait_s
        while True:
            processes = await self._processes(alias)
            is_behind = processes is None or any(each.state is RolloutState.BEHIND for each in processes)
            if not is_behind or self._engine.draining or time.monotonic() >= deadline:
                return MovedAlias.watched(alias, processes)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _processes(self, alias: AliasInfo) -> list[ProcessRollout] | None:
        """How far each live process is, this one first. None if the reports cannot be read."""
        try:
            others = await self._board.others()
        except Exception:
            return None
        return [ProcessRollout.of(status, alias) for status in (self._board.own(), *others)]
