"""Layouts of benchmarks as data, and the one reader that makes items of their records."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import starmap
from pathlib import Path
from typing import Any

from sds_clip.models.errors import EvaluationError
from sds_clip.models.evaluation.annotations import (
    Record,
    annotation_files,
    by_id,
    image_folder,
    no_items,
    read_json,
    records,
    texts_of,
)
from sds_clip.models.evaluation.caption_choice import CaptionChoice
from sds_clip.models.evaluation.items import Item
from sds_clip.models.files import numbered_lines
from sds_clip.models.images.ref import ImageRef
from sds_clip.models.images.tables import read_rows, split_of

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
    name: str = ""
    """The benchmark's, if it is a choice."""
    positives: int = 1
    """How many of the captions are true, all of which must score above the others."""
    is_named: bool = False
    """Whether a file's name says what is in it, so that it must be one of `files`."""
    title: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    """The name of each file, and of its source. If there are none, every .json file is a source."""
    folders: Sequence[str] = ()
    """Where images may be, beside the files."""
    columns: Sequence[str] = ()
    """What of a table is read beside the keys."""
    is_lines: bool = False
    """Whether a file has an object on each line, in place of a list of them."""
    max_bytes: int | None = None
    """The limit of such a file, if it is not that of all annotation files."""
    reader: "Callable[[Layout, Path], Numbered] | None" = None
    """Reads a file that is neither."""

    def choice(self, path: Path, images: Path | None = None) -> CaptionChoice:
        """Read a benchmark whose headline is the mean of its sources. Raises: as `read`."""
        if self.is_named and path.is_file() and path.name not in self.files:
            raise EvaluationError(
                f"{path} is not one of {', '.join(self.files)}; give one of these or their folder."
            )
        items, sources = self.read(path, images)
        settings = self.missing(sources)
        return CaptionChoice(self.name, items, settings, positives=self.positives, macro_tags=sources)

    def missing(self, sources: Sequence[str]) -> dict[str, Any]:
        """Return the setting that says which files are not among those read, or no setting."""
        missing = [Path(file).stem for file, source in self.files.items() if source not in sources]
        return {"files_missing": missing} if missing else {}

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
            found = self.items(self.records(files, is_table=bool(tables)), folder, source)
            if not found:
                raise no_items(files[0])
            items += found
        return tuple(items), tuple(sources)

    def records(self, files: Sequence[Path], *, is_table: bool = False) -> Numbered:
        """Return the records of a file, or of the shards of a table, by their `id`, or by number if they have none.

        Raises EvaluationError or DataError: a file is missing or damaged, or a record lacks a key.
        """
        if self.reader is not None:
            return self.reader(self, files[0])
        found = self._complete(files, is_table)
        return by_id(found, files[0]).items() if "id" in self.keys else enumerate(found)

    def _complete(self, files: Sequence[Path], is_table: bool) -> Iterator[Record]:
        if is_table:
            found: Iterable[Record] = starmap(Record, read_rows(files, *self.keys, *self.columns))
        elif self.is_lines:
            lines = numbered_lines(files[0], EvaluationError, self.words, max_bytes=self.max_bytes)
            found = (Record(f"{files[0]}, line {number}", line) for number, line in lines)
        else:
            found = records(read_json(files[0], self.words), files[0], self.words)
        for record in found:
            record.require(self.keys, self.words)
            yield record

    def items(self, numbered: Numbered, folder: Path, source: str = "") -> tuple[Item, ...]:
        """Make an item of each record. Raises EvaluationError if one has another layout."""
        prefix = f"{source}/" if source else ""
        return tuple(
            self._item(f"{prefix}{number}", replace(record, source=source), folder)
            for number, record in numbered
        )

    def _item(self, item_id: str, record: Record, folder: Path) -> Item:
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
