"""Loads versions into memory: each only once, over shared bases, and checked and warm before it is used."""

import logging
import threading
from collections.abc import Awaitable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakSet, WeakValueDictionary

import torch

from sds_clip.app.errors import InternalError
from sds_clip.app.joined_calls import JoinedCalls
from sds_clip.app.registry.bases import AllowedBases
from sds_clip.app.registry.golden_file import read_golden
from sds_clip.app.registry.local_state import LocalState
from sds_clip.app.registry.manifest import DamagedFiles, VersionError, kind_of, verify
from sds_clip.app.registry.source import Registry, WeightsLocation
from sds_clip.app.serving.engine import Engine
from sds_clip.app.serving.served_models import ModelHandle
from sds_clip.app.threads import in_own_thread, with_one_torch_thread
from sds_clip.models.checkpoints.delta import lay_over
from sds_clip.models.checkpoints.delta_file import Delta, DeltaError, base_of, read_delta
from sds_clip.models.checkpoints.load import load_served
from sds_clip.models.checkpoints.references import Folder, canonical, is_version
from sds_clip.models.clip.golden import TOLERANCE, Golden
from sds_clip.models.clip.mixed import Member, set_apart
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import to_serve
from sds_clip.models.errors import first_line

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class UnknownVersion(VersionError):
    """No version with that hash was published here."""


@dataclass(eq=False)
class VersionLoader:
    """Loads versions for the process's device and precision. `bases` are the operator's references.

    `state` is used if the registry is unavailable, or if a version's files in it are damaged.

    A version that is in memory anywhere in the process is not loaded again. This makes a rollback instant,
    and lets deltas share their base.
    """

    engine: Engine
    registry: Registry
    device: str
    precision: str
    bases: Collection[str]
    state: LocalState | None = None

    def __post_init__(self) -> None:
        self._allowed = AllowedBases(self.bases)
        self._threads = torch.get_num_threads()
        self._loaded: WeakValueDictionary[str, Clip] = WeakValueDictionary()
        self._checked: WeakSet[Clip] = WeakSet()
        # A base lives as long as a delta over it, so that the next delta finds it in memory.
        self._base_of: WeakKeyDictionary[Clip, Clip] = WeakKeyDictionary()
        self._reading: dict[str, threading.Lock] = {}
        self._loads = JoinedCalls[str, Clip]()
        self._copied: WeakSet[Clip] = WeakSet()
        self._golden: WeakKeyDictionary[Clip, Golden] = WeakKeyDictionary()
        for model in self.engine.models:
            self._loaded[model.clip.version] = model.clip
            self._checked.add(model.clip)

    def loaded(self, version: str) -> Clip | None:
        """The version, if it is in memory, checked and warm."""
        clip = self._loaded.get(version)
        return clip if clip in self._checked else None

    def is_copy(self, clip: Clip) -> bool:
        """Whether it was read from this process's own copy because the registry's files were damaged."""
        return clip in self._copied

    def golden(self, clip: Clip) -> Golden | None:
        """The embeddings that were published with the version, or None for an operator's own reference."""
        return self._golden.get(clip)

    async def seen(self, versions: Collection[str], owner: str | None) -> frozenset[str]:
        """Those of the versions that are published and that an owner sees. None, as an owner, sees all.

        Raises whatever the registry raises while it is unavailable.
        """
        return await in_own_thread(lambda: self.registry.seen_among(versions, owner), "look up versions")

    async def load(self, version: str, *, by_alias: bool = False) -> Clip:
        """The version, loaded if necessary. A caller that gives up does not stop the load.

        `by_alias` means that an alias points to it. A registered reference is then loaded even if it is not
        on the operator's list.

        Raises UnknownVersion; CheckpointError if the version is damaged, its base is unavailable, or it
        computes something else; ServiceError if the device fails.
        """
        clip = self.loaded(version)
        if clip is not None:
            return clip
        return await self._loads.run(version, lambda: self._load(version, by_alias), f"load {version[:12]}")

    async def close(self) -> None:
        await self._loads.close()

    async def _load(self, version: str, by_alias: bool) -> Clip:
        def read() -> tuple[Clip, Golden | None]:
            return with_one_torch_thread(lambda: self._read(version, (), by_alias), self._threads)

        clip, golden = await in_own_thread(read, f"load {version[:12]}")
        await self._check(clip, golden, first=by_alias)
        self._checked.add(clip)
        return clip

    def _read(self, version: str, over: tuple[str, ...], by_alias: bool) -> tuple[Clip, Golden | None]:
        """Do every step of loading except the first forward pass. Runs in a thread.

        `over` are the deltas for which this is the base. There are no golden embeddings of an operator's own reference,
        for which only the version is checked.
        """
        found, is_registry = self._find(version) if is_version(version) else (None, False)
        if found is None:
            raise UnknownVersion(f"This server has no version {version[:64]}.")
        loaded = self._loaded.get(version)
        if isinstance(found, str):
            if loaded is None and not by_alias:
                self._allowed.check(found, version)
            return loaded or self._of_reference(found, version), None
        folder = self._whole(found, version, mark=is_registry)
        if kind_of(folder) == "full":
            clip = loaded or self._of_reference(str(Folder(str(folder))), version, called=version)
            golden = read_golden(folder)
        else:
            delta = read_delta(folder)
            clip, golden = loaded or self._apply_delta(delta, (*over, version), by_alias), delta.golden
        if folder != found:
            self._copied.add(clip)
        return clip, golden

    def _find(self, version: str) -> tuple[WeightsLocation | None, bool]:
        """Where the version is, and whether that comes from the registry.

        If the registry does not answer, the location that was last read is used for a version that an alias points to.
        """
        remembered = None if self.state is None else self.state.location(version)
        try:
            found = self.registry.find_version(version)
        except Exception:
            if remembered is None:
                raise
            found = None
        if found is None:
            return remembered, False
        if self.state is not None:
            self.state.note_location(version, found)
        return found, True

    def _whole(self, folder: Path, version: str, *, mark: bool) -> Path:
        """The folder if it holds the files that were published, else this process's copy of it.

        Raises DamagedFiles if there is no good copy.
        """
        try:
            verify(folder, version)
        except DamagedFiles as error:
            if mark:
                self.registry.mark_damaged(version, True)
            copy = None if self.state is None else self.state.whole_copy(version)
            if copy is None:
                raise
            logger.error("A version is damaged, so this process uses its own copy: %s", error)
            return copy
        if mark:
            self.registry.mark_damaged(version, False)
        return folder

    def _apply_delta(self, delta: Delta, over: tuple[str, ...], by_alias: bool) -> Clip:
        base = self._base(delta, over, by_alias)
        # Its version in place of its reference, which would show the path on this server to callers.
        laid = lay_over(base, delta)
        clip = to_serve(replace(laid, reference=laid.version))
        if isinstance(base.network, Member) and (apart := base.network.shared_by_all(delta.tensors)):
            clip = set_apart(clip, f"It changes {len(apart)} tensors besides LayerNorms, such as {apart[0]}.")
        self._base_of[clip] = base
        self._loaded[clip.version] = clip
        return clip

    def _base(self, delta: Delta, over: tuple[str, ...], by_alias: bool) -> Clip:
        """The base of a delta: in memory, published here, or on the operator's list."""
        version = delta.about.base_version
        if version in over:
            raise DeltaError(f"{delta.folder} is a delta over itself; publish the version again.")
        base = self._loaded.get(version)
        if base is not None:
            return base
        if self._find(version)[0] is not None:
            return self._read(version, over, by_alias)[0]
        reference = canonical(str(base_of(delta.folder)))
        self._allowed.check(reference, version)
        return self._of_reference(reference, version)

    def _of_reference(self, reference: str, version: str, *, called: str | None = None) -> Clip:
        """Load whole weights, unless another thread just did: a base, say, that was also asked for by its hash."""
        with self._reading.setdefault(version, threading.Lock()):
            loaded = self._loaded.get(version)
            if loaded is not None:
                return loaded
            clip = to_serve(load_served(reference, device=self.device, precision=self.precision))
            if clip.version != version:
                raise VersionError(
                    f"{reference} is version {clip.version[:12]}, not {version[:12]}; it was changed. Publish it "
                    "again."
                )
            if called is not None:
                clip = replace(clip, reference=called)
            self._loaded[version] = clip
            return clip

    async def _check(self, clip: Clip, golden: Golden | None, *, first: bool) -> None:
        """Compute with the weights for the first time, in the forward thread.

        For a swap, the few golden inputs come `first`, so that it does not wait for the backlog. Those of versions that
        requests name, and the warm-up of new shapes, run in the background, however many are loaded.
        """
        model = ModelHandle(clip.version, 0, clip)
        if golden is not None and (self.state is None or clip not in self.state.checked):
            angle = await _with_cause(self.engine.compute(model, lambda: golden.angle(clip), first=first))
            allowed = TOLERANCE[clip.precision]
            if not angle <= allowed:
                raise VersionError(
                    f"This program does not compute what version {clip.version[:12]} computed when it was "
                    f"published: its golden embeddings differ by {angle:.2g} radians, and {allowed:g} are "
                    f"allowed in {clip.precision}."
                )
            if self.state is not None:
                self.state.checked.add(clip)
        if golden is not None:
            self._golden[clip] = golden
        await _with_cause(self.engine.warm_up_new(model))


async def _with_cause(computed: Awaitable[Answer]) -> Answer:
    """Await a computation, and put the cause of an InternalError into the message.

    Callers of the service are not told internal causes, but the log of a load needs them.
    """
    try:
        return await computed
    except InternalError as error:
        cause = error.__cause__ or error
        raise VersionError(
            f"A forward pass with these weights failed ({type(cause).__name__}: {first_line(cause)})."
        ) from error
