"""A contact sheet of what a search has found: one page of HTML with the pictures in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sds_clip.models.images.decode import ImageError, decode_image
from sds_clip.models.images.files import ImageFileError
from sds_clip.models.images.thumbnails import Picture, thumbnail
from sds_clip.models.pages import environment, render
from sds_clip.models.vectors.entries import find_entry
from sds_clip.models.vectors.mapped import Vectors
from sds_clip.models.vectors.search import Hit

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Elsewhere:
    """Why an image has no picture: it is not below this folder, or may not be read from where it is."""

    folder: Path

    def __str__(self) -> str:
        return f"not below {self.folder}; use --images"


@dataclass(frozen=True)
class Pictures:
    """Reads the images of a file of embeddings, which may be a stranger's, and so none outside of one folder."""

    root: Path
    """The folder that paths are relative to."""
    within: Path
    """The folder outside of which nothing is read."""
    image_key: str | None = None

    @classmethod
    def of(cls, vectors: Vectors, images: Path | None) -> "Pictures":
        """`images` is the folder that the user has named, if any."""
        folder = vectors.path.parent
        return cls(
            folder / vectors.about.images if images is None else images,
            folder if images is None else images,
            vectors.about.image_key,
        )

    def read(self, name: str) -> Picture | Elsewhere | None:
        """Return an image as a small picture, or None if it cannot be read."""
        if not self._is_within(self.root / name):
            return Elsewhere(self.within.resolve())
        try:
            entry = find_entry(self.root, name, image_key=self.image_key)
            if entry is None:
                return Elsewhere(self.root.resolve())
            if not self._is_within(entry.path):
                return Elsewhere(self.within.resolve())
            return thumbnail(decode_image(entry.read()))
        except (ImageFileError, ImageError, OSError, ValueError):
            return None

    def _is_within(self, path: Path) -> bool:
        try:
            return path.resolve().is_relative_to(self.within.resolve())
        except (OSError, ValueError, RuntimeError):  # it is none that the system allows, or a link to itself
            return False


def render_sheet(
    vectors: Vectors,
    tiles: Sequence[tuple[Hit, Picture | Elsewhere | None]],
    query: str,
    *,
    searched: bytes | None = None,
) -> str:
    """Return the page: what was found, with pictures or why there is none. `searched` is an image that was the query.

    Names and the query are escaped. An image that cannot be read (any more) has its name and score.
    """
    return render(
        environment(_HERE).get_template("sheet.html.jinja"),
        _HERE / "sheet.css",
        query=query,
        picture=None if searched is None else thumbnail(decode_image(searched)),
        tiles=tiles,
        rows=len(vectors),
        about=vectors.about,
    )
