import html
import re
from pathlib import Path

import numpy as np
import pytest

from sds_clip.models.vectors.embed import embed
from sds_clip.models.vectors.files import open_vectors
from sds_clip.models.vectors.mapped import Vectors
from sds_clip.models.vectors.search import Hit, search
from sds_clip.models.vectors.sheet import Elsewhere, Pictures, render_sheet
from tests.models.vectors.colours import Colours, colour
from tests.pictures import picture

QUERY = 'a "red" <script>alert(1)</script> & car'


def sheet(photos: Path, tmp_path: Path, searched: bytes | None = None) -> str:
    embed([str(photos)], tmp_path / "v.npy", Colours())
    vectors = open_vectors(tmp_path / "v.npy")
    hits = search(vectors, np.asarray(colour(6, 6, 6)), 5)
    return page_of(vectors, hits, None, searched=searched)


def page_of(vectors: Vectors, hits: list[Hit], images: Path | None, *, searched: bytes | None = None) -> str:
    pictures = Pictures.of(vectors, images)
    tiles = [(hit, pictures.read(hit.path)) for hit in hits]
    return render_sheet(vectors, tiles, QUERY, searched=searched)


def test_the_page_has_every_picture_and_needs_nothing_else(photos: Path, tmp_path: Path) -> None:
    page = sheet(photos, tmp_path)
    assert page.count('src="data:image/webp;base64,') == 5
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "default-src 'none'" in html.unescape(page)


def test_the_query_and_names_are_escaped(photos: Path, tmp_path: Path) -> None:
    (photos / "<b>&.png").write_bytes(picture(6))
    page = sheet(photos, tmp_path)
    assert "<script>" not in page
    assert "<title>a &#34;red&#34; &lt;script&gt;" in page
    assert "&lt;b&gt;&amp;.png" in page
    assert "<b>" not in page


def test_an_image_that_is_gone_has_its_name_and_score(photos: Path, tmp_path: Path) -> None:
    sheet(photos, tmp_path)
    vectors = open_vectors(tmp_path / "v.npy")
    (photos / "g.png").unlink()
    (photos / "f.png").write_bytes(b"no image")
    hits = search(vectors, np.asarray(colour(6, 6, 6)), 5)
    page = page_of(vectors, hits, None)
    assert page.count("cannot be read") == 1
    assert page.count(f"not below {photos}; use --images") == 1
    assert "g.png" in page


def test_an_image_that_was_searched_for_is_shown(photos: Path, tmp_path: Path) -> None:
    assert "The image that was searched for" in sheet(photos, tmp_path, picture(6))
    assert "The image that was searched for" not in sheet(photos, tmp_path)


def test_pictures_outside_the_folder_are_not_read(photos: Path, tmp_path: Path) -> None:
    """Neither those that a path names, nor those that a link in the folder leads to."""
    sheet(photos, tmp_path)
    mine = tmp_path / "private.png"
    mine.write_bytes(picture(6))
    (photos / "link.png").symlink_to(mine)
    (photos / "around").symlink_to(tmp_path)
    vectors = open_vectors(tmp_path / "v.npy")
    names = ["../private.png", str(mine), "link.png", "around/private.png", "b/../../private.png", "a\0.png"]
    hits = [Hit(row, name, 0.5) for row, name in enumerate([*names, "a.png"])]
    page = page_of(vectors, hits, photos)
    assert page.count(f"not below {photos}; use --images") == len(names)
    assert page.count('src="data:image/webp') == 1


def test_folder_that_the_file_names_must_be_below_its_own(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "from a stranger").mkdir()
    embed([str(photos)], tmp_path / "from a stranger" / "v.npy", Colours())
    vectors = open_vectors(tmp_path / "from a stranger" / "v.npy")
    assert vectors.about.images == "../photos"
    hits = search(vectors, np.asarray(colour(6, 6, 6)), 5)
    for images, read in ((None, 0), (photos, 5)):
        page = page_of(vectors, hits, images)
        assert page.count('src="data:image/webp') == read


def test_images_that_were_moved_are_told_until_their_folder_is_named(photos: Path, tmp_path: Path) -> None:
    sheet(photos, tmp_path)
    moved = photos.rename(tmp_path / "moved")
    vectors = open_vectors(tmp_path / "v.npy")
    hits = search(vectors, np.asarray(colour(6, 6, 6)), 5)
    assert page_of(vectors, hits, None).count(f"not below {photos}; use --images") == 5
    assert page_of(vectors, hits, moved).count('src="data:image/webp') == 5


def test_table_leads_to_no_image_outside_the_folder(tmp_path: Path) -> None:
    """Its column of paths may name any file."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    (tmp_path / "private.png").write_bytes(picture(6))
    (tmp_path / "sent").mkdir()
    names = ["../private.png", str(tmp_path / "private.png")]
    parquet.write_table(arrow.table({"filepath": names}), tmp_path / "sent" / "t.parquet")
    pictures = Pictures(tmp_path / "sent", tmp_path / "sent")
    for name in (*names, *(f"t.parquet/{name}" for name in names)):
        assert isinstance(pictures.read(name), Elsewhere | None)
