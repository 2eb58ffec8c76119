"""What is in service: each name's weights behind one reference, so that a swap is one assignment."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass

from app.errors import UnknownModel
from models.clip import Clip

DEFAULT = "default"


@dataclass(frozen=True, eq=False)
class Served:
    """One set of weights as a name serves it. A request holds one from its first step to its answer."""

    name: str
    generation: int
    clip: Clip

    @property
    def key(self) -> tuple[str, str]:
        """What text features and class weights depend on."""
        return self.clip.version, self.clip.precision


class ServedModels:
    """The names that callers may use. `default` is the first of them."""

    def __init__(self, clips: dict[str, Clip]) -> None:
        self._current = {name: Served(name, 1, clip) for name, clip in clips.items()}
        self._previous: dict[str, Served] = {}
        self._default = next(iter(clips))
        self._replacing = threading.Lock()

    def __iter__(self) -> Iterator[Served]:
        return iter(self._current.values())

    def resolve(self, name: str | None) -> Served:
        """What `name` serves now. Raises UnknownModel, which lists the names."""
        if name is None or name == DEFAULT:
            name = self._default
        served = self._current.get(name)
        if served is None:
            known = ", ".join([DEFAULT, *self._current])
            raise UnknownModel(
                f"No model of that name is served here; choose one of: {known}.", param="model"
            )
        return served

    def previous(self, served: Served) -> Served | None:
        """The weights that `served` replaced, kept for an instant return and for label sets."""
        return self._previous.get(served.name)

    def replace(self, name: str, clip: Clip) -> Served:
        """Put other weights behind a name. Requests in flight finish on the weights that they hold."""
        with self._replacing:
            old = self._current[name]
            self._previous[name] = old
            new = Served(name, old.generation + 1, clip)
            self._current[name] = new
        return new
