"""The list of a data set's samples, which its check writes beside the data.

A page of it, or the place of one picture, is read without opening the data. The reader of a format may need much
time, memory or pyarrow, and runs only in a worker.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sds_clip.app.datasets.folders import storage_errors
from sds_clip.app.errors import StorageFull
from sds_clip.app.schemas.samples import MAX_TEXT_CHARS, MAX_TEXTS
from sds_clip.models.images.ref import ImageRef

SAMPLES = "samples.sqlite3"
"""In a data set's folder. Registered data, which stay in place, have a folder with this file alone."""


@dataclass(frozen=True)
class Sample:
    """A sample as it is listed. `id` is its name or its id in the data, and unique for an item of a benchmark."""

    id: str
    captions: tuple[str, ...]
    tags: tuple[str, ...]
    images: tuple[ImageRef, ...]
    """Their paths are relative to the folder of the data."""


def write_samples(file: Path, samples: Iterable[Sample]) -> None:
    """Write the list, whole or not at all. Raises StorageFull, OSError."""
    aside = file.with_name(f".{file.name}")
    with storage_errors():
        aside.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(aside)) as connection:
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("CREATE TABLE samples (number INTEGER PRIMARY KEY, id TEXT, content TEXT)")
            rows = ((number, shown(sample.id), _dumps(sample)) for number, sample in enumerate(samples))
            connection.executemany("INSERT INTO samples VALUES (?, ?, ?)", rows)
            connection.execute("CREATE INDEX samples_by_id ON samples (id)")
            connection.commit()
    except sqlite3.Error as error:  # nothing but a full disk keeps SQLite from writing a new file
        raise StorageFull from error
    with storage_errors():
        descriptor = os.open(aside, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        aside.replace(file)


def read_page(file: Path, after: int, limit: int) -> tuple[list[tuple[int, Sample]], bool]:
    """At most `limit` samples with their numbers, which are above `after`, and whether more follow.

    Raises: FileNotFoundError.
    """
    with _opened(file) as connection:
        query = "SELECT number, content FROM samples WHERE number > ? ORDER BY number LIMIT ?"
        rows = connection.execute(query, (after, limit + 1)).fetchall()
    return [(number, _loads(content)) for number, content in rows[:limit]], len(rows) > limit


def read_sample(file: Path, number: int) -> Sample | None:
    """Raises: FileNotFoundError."""
    with _opened(file) as connection:
        row = connection.execute("SELECT content FROM samples WHERE number = ?", (number,)).fetchone()
    return None if row is None else _loads(row[0])


def count_images(file: Path, sample_ids: Iterable[str]) -> dict[str, tuple[int, int]]:
    """The number of each sample that the list has, and that of its pictures, by its id as it was given.

    Raises: FileNotFoundError.
    """
    with _opened(file) as connection:
        found = {}
        for sample_id in dict.fromkeys(sample_ids):
            query = "SELECT number, json_array_length(content, '$.images') FROM samples WHERE id = ?"
            if (row := connection.execute(query, (shown(sample_id),)).fetchone()) is not None:
                found[sample_id] = row
        return found


def shown(text: str) -> str:
    """A text of the data as it is listed: no longer than allowed, and without halves of surrogate pairs."""
    text = text if len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 1]}\u2026"
    return text.encode("utf-8", "replace").decode()


@contextmanager
def _opened(file: Path) -> Iterator[sqlite3.Connection]:
    if not file.is_file():
        raise FileNotFoundError(file)
    # The file never changes once it has its name, so that it needs no locks.
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?immutable=1", uri=True)) as connection:
        yield connection


def _dumps(sample: Sample) -> str:
    content = {
        "id": shown(sample.id),
        "captions": [shown(text) for text in sample.captions[:MAX_TEXTS]],
        "tags": [shown(text) for text in sample.tags[:MAX_TEXTS]],
        "images": [image.as_json() for image in sample.images],
    }
    return json.dumps(content)


def _loads(content: str) -> Sample:
    fields: dict[str, Any] = json.loads(content)
    images = tuple(map(ImageRef.of_json, fields["images"]))
    return Sample(fields["id"], tuple(fields["captions"]), tuple(fields["tags"]), images)
