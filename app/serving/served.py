"""What is in service: each name's weights behind one reference, so that a swap is one assignment."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from app.errors import ServiceError, UnknownModel
from app.schemas.common import ModelInfo
from app.store.alias_names import DEFAULT
from models.clip import Clip


@dataclass(frozen=True, eq=False)
class Served:
    """One set of weights as a name serves it. A request holds one from its first step to its answer."""

    name: str
    generation: int
    clip: Clip
    since: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    @property
    def info(self) -> ModelInfo:
        """How an answer names the weights that gave it."""
        return ModelInfo(name=self.name, version=self.clip.version, generation=self.generation)

    @property
    def key(self) -> tuple[str, str]:
        """What text features and class weights depend on."""
        return self.clip.version, self.clip.precision


class ServedModels:
    """The names that callers may use: the operator's references, then aliases, which may take a reference's name.

    `default` is the alias of that name where there is one, else the first reference. Where an alias may have a name
    and its version is not loaded, nothing answers for that name: `withheld` says why.
    """

    def __init__(self, clips: dict[str, Clip]) -> None:
        self._references = {name: Served(name, 1, clip) for name, clip in clips.items()}
        self._aliases: dict[str, Served] = {}
        self._previous: dict[str, Served] = {}
        self._first = next(iter(clips))
        self._replacing = threading.Lock()
        self.version_named: Callable[[str], Served | None] = lambda name: None
        """Finds a version that requests name by its hash; see `app.serving.versions`."""
        self.withheld: Callable[[str], ServiceError | None] = lambda name: None
        """Why neither a reference nor nothing at all may stand for a name; see `app.serving.swap`."""

    def __iter__(self) -> Iterator[Served]:
        return iter((self._references | self._aliases).values())

    def resolve(self, name: str | None) -> Served:
        """What `name` serves now.

        Raises: UnknownModel, which lists the names; what `withheld` has for the name.
        """
        name = DEFAULT if name is None else name
        served = self.current(name) or self.version_named(name)
        if served is None:
            if (reason := self.withheld(name)) is not None:
                raise reason
            known = ", ".join(dict.fromkeys([DEFAULT, *self._references, *self._aliases]))
            raise UnknownModel(
                f"No model of that name is served here; choose one of: {known}.", param="model"
            )
        return served

    def current(self, name: str) -> Served | None:
        """What a name serves now, or None."""
        if name in self._aliases:
            return self._aliases[name]
        if self.withheld(name) is not None:
            return None
        if name == DEFAULT:
            return self.current(self._first)
        return self._references.get(name)

    def previous(self, served: Served) -> Served | None:
        """The weights that `served` replaced, kept for an instant return and for label sets."""
        return self._previous.get(served.name)

    def held(self) -> list[Served]:
        """All that is kept in memory here: what names serve, and what they served before."""
        return [*self, *self._previous.values()]

    def replace(self, name: str, clip: Clip, generation: int | None = None) -> Served:
        """Put other weights behind a name, or make it; the generation is the next one if not given.

        Requests in flight finish on the weights that they hold.
        """
        with self._replacing:
            old = self.current(name)
            following = 1 if old is None else old.generation + 1
            new = Served(name, following if generation is None else generation, clip)
            # The same weights under another generation leave the way back open.
            if old is not None and old.key != new.key:
                self._previous[name] = old
            self._aliases[name] = new
        return new
