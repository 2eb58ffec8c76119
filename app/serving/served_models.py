"""The models in service: each name's weights behind one handle, so that a swap is one assignment."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from sds_clip.app.errors import ServiceError, UnknownModel
from sds_clip.app.schemas.common import ModelInfo
from sds_clip.app.serving.aliases import FollowedAliases
from sds_clip.app.store.alias_names import DEFAULT
from sds_clip.models.clip.model import Clip
from sds_clip.models.clip.packed import to_serve

MAX_NAMES = 10  # in an error


@dataclass(frozen=True, eq=False)
class ModelHandle:
    """The weights that a name serves. A request keeps one handle from its first step to its answer."""

    name: str
    generation: int
    clip: Clip
    since: float = field(default_factory=time.time)
    """Seconds since the epoch."""

    @property
    def info(self) -> ModelInfo:
        return ModelInfo(name=self.name, version=self.clip.version, generation=self.generation)

    @property
    def key(self) -> tuple[str, str]:
        """The key on which text features and class weights depend."""
        return self.clip.version, self.clip.precision


class ServedModels:
    """The names that callers may use: the operator's references, then aliases.

    An alias may take a reference's name. `default` is the alias of that name if there is one, else the first
    reference. `aliases` is what the process knows about the aliases, if it follows any. A reference answers
    only for a name that `aliases` does not withhold.
    """

    def __init__(self, clips: dict[str, Clip], aliases: FollowedAliases | None = None) -> None:
        self._references = {name: ModelHandle(name, 1, to_serve(clip)) for name, clip in clips.items()}
        self._aliases = aliases
        self._swapped_in: dict[str, ModelHandle] = {}
        self._replaced: dict[str, ModelHandle] = {}
        self._kept: dict[str, ModelHandle] = {}
        self._first = next(iter(clips))
        self._replacing = threading.Lock()

    def __iter__(self) -> Iterator[ModelHandle]:
        return iter((self._references | self._swapped_in).values())

    def resolve(self, name: str | None) -> ModelHandle:
        """The model that `name` serves now.

        Raises: UnknownModel, which lists the first names; for a name that is withheld, the error that says why.
        """
        name = DEFAULT if name is None else name
        model = self.current(name)
        if model is not None:
            return model
        if (reason := self._withheld(name)) is not None:
            raise reason
        known = list(dict.fromkeys([DEFAULT, *self._references, *self._swapped_in]))
        names = ", ".join(known[:MAX_NAMES])
        if len(known) > MAX_NAMES:
            names += f", or another of the {len(known)} that GET /models lists"
        raise UnknownModel(f"The server has no model of this name; choose one of: {names}.", param="model")

    def current(self, name: str) -> ModelHandle | None:
        if name in self._swapped_in:
            return self._swapped_in[name]
        if self._withheld(name) is not None:
            return None
        if name == DEFAULT:
            return self.current(self._first)
        return self._references.get(name)

    def replaced(self, model: ModelHandle) -> ModelHandle | None:
        """The weights that `model` replaced, kept for label sets, and for a rollback after a promotion."""
        return self._replaced.get(model.name)

    def held(self) -> list[ModelHandle]:
        """All models kept in memory: those that names serve now, and those that they may serve next."""
        return [*self, *self._replaced.values(), *self._kept.values()]

    def keep(self, name: str, clip: Clip) -> None:
        """Keep weights that no request asks for, so that a rollback of the name to them loads nothing.

        The next swap of the name ends this.
        """
        self._kept[name] = ModelHandle(name, 0, clip)

    def replace(self, name: str, clip: Clip, generation: int | None = None) -> ModelHandle:
        """Assign new weights to a name, or create the name. The generation defaults to the next one.

        Requests in flight finish with the weights that they hold.
        """
        with self._replacing:
            old = self.current(name)
            following = 1 if old is None else old.generation + 1
            new = ModelHandle(name, following if generation is None else generation, clip)
            # The same weights under a new generation must not replace the version to roll back to.
            if old is not None and old.key != new.key:
                self._replaced[name] = old
                self._kept.pop(name, None)
            self._swapped_in[name] = new
        return new

    def remove(self, name: str) -> None:
        """Take away what was assigned to a name. If it is the name of a reference, the reference answers again."""
        with self._replacing:
            for models in (self._swapped_in, self._replaced, self._kept):
                models.pop(name, None)

    def _withheld(self, name: str) -> ServiceError | None:
        return None if self._aliases is None else self._aliases.withheld(name)
