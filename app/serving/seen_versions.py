"""Which versions in memory are still published, and for whom: looked up together, now and then."""

import asyncio
import time
from dataclasses import dataclass, field

from sds_clip.app.serving.loading import VersionLoader

LOOK_UP_EVERY_S = 2.0
"""How long a version may still answer from memory after it was deleted or its alias moved."""


@dataclass
class _Seen:
    """The versions that an owner sees, and when they were looked up, on the monotonic clock."""

    versions: set[str] = field(default_factory=set)
    looked_up_at: float = field(default_factory=time.monotonic)
    line: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the look-up that runs. The next one takes what is asked for meanwhile."""
    asked: set[str] = field(default_factory=set)
    next: "asyncio.Task[frozenset[str]] | None" = None


class SeenVersions:
    """Remembers what each owner sees, so that requests do not each ask the registry.

    The owner None sees everything that is published and not deleted.
    """

    def __init__(self, loader: VersionLoader) -> None:
        self._loader = loader
        self._by_owner: dict[str | None, _Seen] = {}

    def note(self, version: str) -> None:
        """Remember that a version is published."""
        self._by_owner.setdefault(None, _Seen()).versions.add(version)

    def forget(self, version: str) -> None:
        """Forget who sees a version, which is in memory no more."""
        for seen in self._by_owner.values():
            seen.versions.discard(version)

    async def has(self, version: str, owner: str | None) -> bool:
        """Whether an owner sees a version.

        What was seen before is looked up again, all at once. Meanwhile, and while the registry is away, it is assumed
        unchanged. Raises whatever the registry raises for a version that was not seen before.
        """
        seen = self._by_owner.setdefault(owner, _Seen())
        if version not in seen.versions:
            seen.asked.add(version)
            if seen.next is None:
                seen.next = asyncio.create_task(self._look_up(seen, owner), name="look up versions")
                seen.next.add_done_callback(lambda task: task.cancelled() or task.exception())
            return version in await asyncio.shield(seen.next)  # which goes on if this request is given up
        if time.monotonic() - seen.looked_up_at >= LOOK_UP_EVERY_S:
            seen.looked_up_at = time.monotonic()
            await self._look_up_again(seen, owner)
        return version in seen.versions

    async def _look_up(self, seen: _Seen, owner: str | None) -> frozenset[str]:
        """Those of the versions asked for that the owner sees, after the look-up that runs."""
        async with seen.line:
            asked, seen.asked, seen.next = seen.asked, set(), None
            found = await self._loader.seen(asked, owner)
            seen.versions.update(found)
            return found

    async def _look_up_again(self, seen: _Seen, owner: str | None) -> None:
        asked = frozenset(seen.versions)
        try:
            found = await self._loader.seen(asked, owner)
        except Exception:  # the registry is away
            return
        seen.versions -= asked - found
