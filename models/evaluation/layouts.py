"""Layouts of benchmarks as data, and the one reader that makes items of their records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.annotations import Record, annotation_files, image_folder, no_items, texts_of
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.items import Item
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tables import split_of

Numbered = Iterable[tuple[object, Record]]
"""Records with their number, id or key, with which the item's id ends."""


@dataclass(frozen=True)
class Layout:
    """What a benchmark's records hold under which keys, and which files they are in."""

    words: str
    """What a file must be, for messages."""
    keys: Sequence[str]
    """What a record must have, in the order in which messages name what it lacks."""
    images: Sequence[str]
    captions: Sequence[str]
    """The key of each caption, or the one key of a list of them."""
    image: Callable[[Record, str, Path], ImageRef] = Record.image
    tags: Callable[[Record], Sequence[str]] = lambda _: ()
    """The tags of a record. If it has a source, its name is a tag too, and the others begin with it."""
    title: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """The name of each file, and of its source. If there are none, every .json file is a source."""
    folders: Sequence[str] = ()
    """Where images may be, beside the files."""
    records: Callable[[Layout, Sequence[Path]], Numbered] = lambda *_: ()
    """What `read` gets of a source, which is a file, or the shards of a table."""

    def choice(self, name: str, path: Path, images: Path | None, positives: int = 1) -> CaptionChoice:
        """Read a benchmark whose headline is the mean of its sources. Raises: as `read`."""
        items, sources = self.read(path, images)
        missing = [Path(file).stem for file, source in self.files.items() if source not in sources]
        settings = {"files_missing": missing} if missing else {}
        return CaptionChoice(name, items, settings, positives=positives, macro_tags=sources)

    def read(
        self, path: Path, images: Path | None, tables: Sequence[Path] = ()
    ) -> tuple[tuple[Item, ...], tuple[str, ...]]:
        """Return the items of the file that `path` is, of those in the folder or of `tables`, and their sources.

        Images are in `images`, or by default in one of `folders` or next to the files.

        Raises:
            EvaluationError or DataError: there are no such files, or one has another layout.
        """
        sources: dict[str, list[Path]] = {}
        for file in tables or annotation_files(path, self.files or None, self.title):
            sources.setdefault(self.files.get(file.name) or split_of(file), []).append(file)
        items: list[Item] = []
        for source, files in sources.items():
            folder = image_folder(images, files[0].parent, *self.folders)
            found = self.items(self.records(self, files), folder, source)
            if not found:
                raise no_items(files[0])
            items += found
        return tuple(items), tuple(sources)

    def items(self, numbered: Numbered, folder: Path, source: str = "") -> tuple[Item, ...]:
        """Make an item of each record. Raises EvaluationError if one has another layout."""
        prefix = f"{source}/" if source else ""
        return tuple(
            self._item(f"{prefix}{number}", replace(record, source=source), folder)
            for number, record in numbered
        )

    def _item(self, item_id: str, record: Record, folder: Path) -> Item:
        record.require(self.keys, self.words)
        return Item(
            id=item_id,
            images=tuple(self.image(record, key, folder) for key in self.images),
            captions=self._captions(record),
            tags=self._tags(record),
        )

    def _tags(self, record: Record) -> tuple[str, ...]:
        source, tags = record.source, self.tags(record)
        return (source, *(f"{source}: {tag}" for tag in tags)) if source else tuple(tags)

    def _captions(self, record: Record) -> tuple[str, ...]:
        if len(self.captions) > 1:
            return tuple(map(record.text, self.captions))
        captions = record.values[self.captions[0]]
        if not isinstance(captions, list) or len(captions) < 2:
            raise EvaluationError(
                f"{record.where}: there are fewer than two captions; the file must be {self.words}."
            )
        return texts_of(captions, "caption", record.where)
