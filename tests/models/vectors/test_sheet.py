import html
import re
from pathlib import Path

import numpy as np

from models.vectors.embed import embed
from models.vectors.files import open_vectors
from models.vectors.search import search
from models.vectors.sheet import render_sheet
from tests.models.vectors.colours import Colours, colour
from tests.pictures import picture

QUERY = 'a "red" <script>alert(1)</script> & car'


def sheet(photos: Path, tmp_path: Path, searched: bytes | None = None) -> str:
    embed([str(photos)], tmp_path / "v.npy", Colours())
    vectors = open_vectors(tmp_path / "v.npy")
    hits = search(vectors, np.asarray(colour(6, 6, 6)), 5)
    return render_sheet(vectors, hits, QUERY, photos, searched=searched)


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
    page = render_sheet(vectors, search(vectors, colour(6, 6, 6), 5), QUERY, photos)
    assert page.count("cannot be read") == 2
    assert "g.png" in page


def test_an_image_that_was_searched_for_is_shown(photos: Path, tmp_path: Path) -> None:
    assert "The image that was searched for" in sheet(photos, tmp_path, picture(6))
    assert "The image that was searched for" not in sheet(photos, tmp_path)
