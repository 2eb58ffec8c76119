from pathlib import Path

import pytest

from sds_clip.models.errors import DataError, VectorsError
from sds_clip.models.images.files import ImageFileError
from sds_clip.models.vectors.entries import find_entry, list_entries, read_entry, root_of
from tests.pictures import picture
from tests.tars import save_tar


def names(*inputs: Path | str, image_key: str | None = None) -> list[str]:
    return [entry.name for entry in list_entries([str(given) for given in inputs], image_key=image_key)]


def test_a_folder_is_listed_in_the_order_of_its_names_without_hidden_files(photos: Path) -> None:
    (photos / "notes.txt").write_text("no image")
    (photos / ".hidden.png").write_bytes(picture(1))
    (photos / ".cache").mkdir()
    (photos / ".cache" / "x.png").write_bytes(picture(1))
    assert names(photos) == ["a.png", "b/c.jpg", "b/d.png", "b.webp", "e.gif", "f.png", "g.png"]
    assert next(list_entries([str(photos)])).read() == picture(0)


def test_links_to_folders_are_not_followed_so_that_a_loop_ends(photos: Path) -> None:
    (photos / "loop").symlink_to(photos)
    (photos / "link.png").symlink_to(photos / "a.png")
    assert names(photos) == ["a.png", "b/c.jpg", "b/d.png", "b.webp", "e.gif", "f.png", "g.png", "link.png"]


def test_several_inputs_keep_their_paths_and_none_is_listed_twice(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    listed = names("photos/g.png", "photos/b", "photos/b", "photos/b/c.jpg")
    assert listed == ["photos/b/c.jpg", "photos/b/d.png", "photos/g.png"]
    assert root_of(["photos/g.png", "photos/b"]) == Path()
    assert names(".", "photos/a.png")[0] == "photos/a.png"


def test_images_of_shards_are_read_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_tar(Path("0.tar"), {"x.png": picture(1), "x.txt": b"caption"})
    save_tar(Path("1.tar"), {"sub/y.png": picture(2)})
    entries = list(list_entries(["{0..1}.tar"]))
    assert [entry.name for entry in entries] == ["0.tar/x.png", "1.tar/sub/y.png"]
    assert [entry.read() for entry in entries] == [picture(1), picture(2)]


def test_a_damaged_shard_in_a_folder_is_an_image_that_cannot_be_read(photos: Path) -> None:
    (photos / "backup.tar").write_bytes(b"no archive")
    save_tar(photos / "more.tar", {"x.png": picture(9)})
    entries = {entry.name: entry for entry in list_entries([str(photos)])}
    assert entries["more.tar/x.png"].read() == picture(9)
    with pytest.raises(ImageFileError, match="not a complete, uncompressed tar"):
        read_entry(entries["backup.tar"])


@pytest.mark.parametrize("missing", ["nowhere", "nowhere.tar", "nowhere.parquet"])
def test_an_input_that_does_not_exist_is_an_error(missing: str, photos: Path) -> None:
    with pytest.raises(VectorsError, match="There is no file or folder nowhere"):
        names(photos, missing)


def test_an_image_is_found_again_by_its_name(photos: Path, tmp_path: Path) -> None:
    save_tar(photos / "more.tar", {"x.png": picture(9)})
    for entry in list_entries([str(photos)]):
        found = find_entry(photos, entry.name)
        assert found is not None
        assert found.read() == entry.read()
    assert find_entry(photos, "gone.png") is None
    absolute = find_entry(Path("elsewhere"), (photos / "more.tar/x.png").as_posix())
    assert absolute is not None
    assert absolute.read() == picture(9)
    assert find_entry(photos, "more.tar/gone.png") is None


def test_tables_hold_images_or_their_paths(photos: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    cells = [{"bytes": picture(number), "path": None} for number in range(5)]
    pq.write_table(pa.table({"image": cells}), photos / "cells.parquet", row_group_size=2)
    entries = list(list_entries([str(photos / "cells.parquet")]))
    assert [entry.name for entry in entries] == [f"cells.parquet/{row:08d}" for row in range(5)]
    assert [entry.read() for entry in entries] == [picture(number) for number in range(5)]
    found = find_entry(photos, "cells.parquet/00000003")
    assert found is not None
    assert found.read() == picture(3)

    pq.write_table(pa.table({"filepath": ["a.png", "b/d.png", "a.png"]}), photos / "paths.parquet")
    assert names(photos / "paths.parquet") == ["a.png", "b/d.png"]
    assert root_of([str(photos / "paths.parquet")]) == photos

    pq.write_table(pa.table({"picture": [picture(1), None]}), photos / "bytes.parquet")
    one, none = list_entries([str(photos / "bytes.parquet")], image_key="picture")
    assert one.read() == picture(1)
    found = find_entry(photos, "bytes.parquet/00000000", image_key="picture")
    assert found is not None
    assert found.read() == picture(1)
    with pytest.raises(ImageFileError, match="no bytes"):
        none.read()


def test_a_table_without_images_is_an_error_that_names_its_columns(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"label": [1], "image": [2.5]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="has the type double"):
        names(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="its columns are label, image"):
        names(tmp_path / "t.parquet", image_key="picture")
    (tmp_path / "t.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="is not a whole Parquet"):
        names(tmp_path / "t.parquet")
