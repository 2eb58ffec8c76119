"""A contact sheet of what a search has found: one page of HTML with the pictures in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from models.image_files import ImageFileError
from models.images import ImageError, decode_image
from models.pages import environment, policy
from models.thumbnails import Picture, thumbnail
from models.vectors.entries import find_entry
from models.vectors.mapped import Vectors
from models.vectors.search import Hit

_HERE = Path(__file__).parent


def render_sheet(
    vectors: Vectors, hits: Sequence[Hit], query: str, images: Path, *, searched: bytes | None = None
) -> str:
    """Return the page. `images` is the folder that paths are relative to; `searched` is an image that was the query.

    Names and the query are escaped. An image that cannot be read (any more) has its name and score.
    """
    style = (_HERE / "sheet.css").read_text(encoding="utf-8")
    page: str = (
        environment(_HERE)
        .get_template("sheet.html.jinja")
        .render(
            query=query,
            picture=None if searched is None else thumbnail(decode_image(searched)),
            tiles=[(hit, _picture(images, hit.path, vectors.about.image_key)) for hit in hits],
            rows=len(vectors),
            about=vectors.about,
            style=Markup(style),
            policy=policy(style),
        )
    )
    return page


def _picture(images: Path, name: str, image_key: str | None) -> Picture | None:
    try:
        entry = find_entry(images, name, image_key=image_key)
        return None if entry is None else thumbnail(decode_image(entry.read()))
    except (ImageFileError, ImageError, OSError, ValueError):  # a name may be none that the system allows
        return None
