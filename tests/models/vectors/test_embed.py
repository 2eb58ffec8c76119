import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from sds_clip.models.errors import VectorsError
from sds_clip.models.vectors.embed import Options, Summary, embed, errors_file, work_folder
from sds_clip.models.vectors.files import open_vectors
from sds_clip.models.vectors.work import Part, Work
from tests.models.vectors.colours import Colours, colour
from tests.models.vectors.conftest import NAMES
from tests.pictures import picture, save_pictures

NAMES_IN_ORDER = ["a.png", "b/c.jpg", "b/d.png", "b.webp", "e.gif", "f.png", "g.png"]
TWO = Options(batch_size=2, threads=2)


class Counting(Colours):
    """Counts the images that go through it."""

    def __init__(self, version: str = "colours") -> None:
        self.batches: list[int] = []
        super().__init__(version, self.batches.append)


class Scaling(Colours):
    """Decodes in the second way, unless it is told otherwise and can do so."""

    def __init__(self, *, can_follow: bool = True) -> None:
        super().__init__()
        self.decoding, self._can_follow = 2, can_follow

    def decode_as(self, decoding: int) -> None:
        if self._can_follow:
            self.decoding = decoding


class Stopping(Colours):
    """Fails in place of a batch."""

    def __init__(self, batch: int) -> None:
        self._left = batch
        super().__init__(told=self._count)

    def _count(self, images: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


def rows(out: Path) -> dict[str, np.ndarray]:
    vectors = open_vectors(out)
    return {path: vectors.row(row) for row, (path, _) in enumerate(vectors.records)}


def errors(out: Path) -> dict[str, str]:
    records = [json.loads(line) for line in errors_file(out).read_text().splitlines()]
    return {record["path"]: record["code"] for record in records}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "v.npy"


@pytest.fixture(params=[".npy", ".arrow", ".parquet"])
def any_out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param != ".npy":
        pytest.importorskip("pyarrow")
    return tmp_path / f"v{request.param}"


def test_every_image_has_a_row_and_batches_follow_the_list(photos: Path, out: Path) -> None:
    encoder = Counting()
    assert embed([str(photos)], out, encoder, TWO) == Summary(rows=7, embedded=7)
    found = rows(out)
    assert list(found) == NAMES_IN_ORDER
    for name in ("a.png", "f.png", "g.png"):
        level = NAMES.index(name)
        np.testing.assert_array_equal(found[name], colour(level, level, level))
    assert encoder.batches == [2, 2, 2, 1]
    assert not errors_file(out).exists()
    assert not work_folder(out).exists()


def test_the_file_says_which_model_made_it_and_where_the_images_are(photos: Path, any_out: Path) -> None:
    embed([str(photos)], any_out, Colours("v1"), Options(dtype="float16"))
    about = open_vectors(any_out).about
    assert (about.version, about.dimensions, about.dtype, about.images) == ("v1", 4, "float16", "photos")
    np.testing.assert_allclose(rows(any_out)["g.png"], colour(6, 6, 6), rtol=1e-3)


def test_images_that_cannot_be_read_are_listed_and_the_others_embedded(photos: Path, out: Path) -> None:
    (photos / "a.png").write_bytes(b"no image")
    (photos / "f.png").write_bytes(b"")
    os.mkfifo(photos / "pipe.png")
    (photos / os.fsdecode(b"\xff.png")).write_bytes(picture(1))
    summary = embed([str(photos)], out, Colours(), TWO)
    assert (summary.rows, summary.unreadable) == (5, 4)
    assert errors(out) == {
        "a.png": "image_format",
        "f.png": "image_empty",
        "pipe.png": "file_unreadable",
        "\udcff.png": "bad_name",
    }
    assert "a.png" not in rows(out)


def test_nothing_is_written_if_no_image_can_be_read(tmp_path: Path, out: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"no image")
    with pytest.raises(VectorsError, match="No image can be read"):
        embed([str(tmp_path / "photos")], out, Colours())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "v.errors.jsonl"]


def test_files_that_are_no_images_are_counted_by_their_type(photos: Path) -> None:
    for name in ("a.HEIC", "b.heic", "c.txt", "none", ".hidden"):
        (photos / name).touch()
    (photos / "b").mkdir(exist_ok=True)
    (photos / "b" / "d.heic").touch()
    for _ in range(2):  # what the run itself writes there does not count
        summary = embed([str(photos)], photos / "v.npy", Colours())
        assert summary.left_out == {".heic": 3, ".txt": 1, "": 1}
    assert summary.counts_left_out().startswith("3 .heic files, ")


def test_folder_of_other_files_alone_says_of_which_type_they_are(tmp_path: Path, out: Path) -> None:
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "a.heic").touch()
    with pytest.raises(VectorsError, match=r"There are no images in .*phone \(1 \.heic file\);"):
        embed([str(tmp_path / "phone")], out, Colours())


def test_a_folder_without_images_is_an_error_that_leaves_nothing(tmp_path: Path, out: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(VectorsError, match="There are no images"):
        embed([str(tmp_path / "photos")], out, Colours())
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize("stopped_at", range(3))
def test_a_stopped_run_is_finished_with_the_same_bytes(photos: Path, any_out: Path, stopped_at: int) -> None:
    (photos / "b" / "c.jpg").write_bytes(b"no image")
    whole = any_out.with_stem("whole")
    embed([str(photos)], whole, Colours(), TWO)
    with pytest.raises(KeyboardInterrupt):
        embed([str(photos)], any_out, Stopping(stopped_at), TWO)
    encoder = Counting()
    embed([str(photos)], any_out, encoder, TWO)
    assert any_out.read_bytes() == whole.read_bytes()
    assert sum(encoder.batches) == 6 - 2 * stopped_at
    assert errors(any_out) == {"b/c.jpg": "image_format"}


@pytest.mark.long
def test_a_process_that_is_killed_repeats_at_most_one_batch_and_the_bytes_are_equal(tmp_path: Path) -> None:
    photos = save_pictures(tmp_path / "photos", [f"{number:03}.png" for number in range(120)])
    whole, out, calls = tmp_path / "whole.npy", tmp_path / "v.npy", tmp_path / "calls"
    embed([str(photos)], whole, Colours(), TWO)
    command = [sys.executable, "-m", "tests.models.vectors.colours", str(photos), str(out), str(calls)]
    for done in (3, 20, 41):
        process = subprocess.Popen(command)
        while process.poll() is None and lines(calls) < done:
            time.sleep(0.001)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    assert out.read_bytes() == whole.read_bytes()
    assert out.with_suffix(".jsonl").read_bytes() == whole.with_suffix(".jsonl").read_bytes()
    assert 60 <= lines(calls) <= 60 + 3


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.parametrize("content", [b"no database", None])
def test_damaged_folder_of_an_unfinished_run_says_what_to_remove(
    photos: Path, out: Path, content: bytes | None
) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed([str(photos)], out, Stopping(2), TWO)
    (file,) = work_folder(out).iterdir()
    whole = file.read_bytes()
    file.write_bytes(content or whole[:4096] + bytes(len(whole) - 4096))
    with pytest.raises(VectorsError, match=r"is damaged; remove the folder .*\.partial to begin again"):
        embed([str(photos)], out, Colours(), TWO)
    shutil.rmtree(work_folder(out))
    assert embed([str(photos)], out, Colours(), TWO).rows == 7


def test_damaged_manifest_says_what_to_remove(photos: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed([str(photos)], out, Stopping(1), TWO)
    (file,) = work_folder(out).iterdir()
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE run SET manifest = '{}'")
    with pytest.raises(VectorsError, match=r"is damaged; remove the folder .*\.partial to begin again"):
        embed([str(photos)], out, Colours(), TWO)


def test_part_is_whole_or_not_there(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = out.with_stem("whole")
    embed([str(photos)], whole, Colours(), TWO)

    def interrupted(self: Work, part: Part) -> None:
        part.errors = [object()]  # type: ignore[list-item]  # the rows are written before
        with pytest.raises(TypeError):
            add(self, part)
        raise KeyboardInterrupt

    add = Work.add
    with monkeypatch.context() as patch:
        patch.setattr(Work, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed([str(photos)], out, Colours(), TWO)
    with Work(work_folder(out)) as work:
        work.resume()
        assert (work.done.rows, list(work.rows())) == (0, [])
    embed([str(photos)], out, Colours(), TWO)
    assert out.read_bytes() == whole.read_bytes()


def test_a_second_run_embeds_only_new_contents(photos: Path, any_out: Path) -> None:
    embed([str(photos)], any_out, Colours(), TWO)
    before = rows(any_out)
    (photos / "a.png").write_bytes(picture(200))
    (photos / "new.png").write_bytes(picture(201))
    (photos / "copy.png").write_bytes((photos / "g.png").read_bytes())
    (photos / "f.png").rename(photos / "renamed.png")
    encoder = Counting()
    summary = embed([str(photos)], any_out, encoder, TWO)
    assert encoder.batches == [2]
    assert (summary.rows, summary.embedded, summary.missing) == (9, 2, 1)
    after = rows(any_out)
    np.testing.assert_array_equal(after["a.png"], colour(200, 200, 200))
    np.testing.assert_array_equal(after["renamed.png"], before["f.png"])
    np.testing.assert_array_equal(after["copy.png"], before["g.png"])
    assert errors(any_out) == {"f.png": "image_missing"}


def test_rows_of_images_that_are_gone_are_kept_if_asked(photos: Path, any_out: Path) -> None:
    embed([str(photos)], any_out, Colours(), TWO)
    before = rows(any_out)
    (photos / "a.png").unlink()
    summary = embed([str(photos)], any_out, Colours(), Options(keep_missing=True))
    assert (summary.rows, summary.missing) == (7, 1)
    after = rows(any_out)
    assert list(after) == [*NAMES_IN_ORDER[1:], "a.png"]
    np.testing.assert_array_equal(after["a.png"], before["a.png"])


def test_a_file_of_other_images_is_not_replaced(photos: Path, tmp_path: Path, out: Path) -> None:
    embed([str(photos)], out, Colours(), TWO)
    others = save_pictures(tmp_path / "others", ["x.png"])
    with pytest.raises(VectorsError, match="none of its 7 images is among these"):
        embed([str(others)], out, Colours(), TWO)
    assert not work_folder(out).exists()
    with pytest.raises(VectorsError, match="images of another folder"):
        embed([str(others)], out, Colours(), Options(keep_missing=True))
    assert not work_folder(out).exists()


def test_rows_of_another_model_do_not_go_into_the_same_file(photos: Path, out: Path) -> None:
    embed([str(photos)], out, Colours(), TWO)
    for encoder, options, message in (
        (Colours("other"), TWO, "the model's version is colours there and other here"),
        (Colours(), Options(dtype="float16"), "the format of the numbers is float32 there and float16 here"),
    ):
        with pytest.raises(VectorsError, match=message):
            embed([str(photos)], out, encoder, options)
        assert not work_folder(out).exists()


def test_a_file_says_how_its_images_were_decoded_and_is_continued_in_that_way(
    photos: Path, tmp_path: Path, any_out: Path
) -> None:
    embed([str(photos)], any_out, Colours(), TWO)
    assert open_vectors(any_out).about.decoding == 1
    (photos / "new.png").write_bytes(picture(201))
    assert embed([str(photos)], any_out, Scaling(), TWO) == Summary(rows=8, embedded=1)
    assert open_vectors(any_out).about.decoding == 1
    other = any_out.with_stem("other")
    embed([str(photos)], other, Scaling(), TWO)
    assert open_vectors(other).about.decoding == 2
    with pytest.raises(VectorsError, match="the way that images are decoded is scaled there and full here"):
        embed([str(photos)], other, Colours(), TWO)
    assert not work_folder(other).exists()


def test_an_unfinished_run_is_continued_with_the_decoding_with_which_it_was_begun(
    photos: Path, out: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed([str(photos)], out, Stopping(1), TWO)
    with pytest.raises(VectorsError, match="the way that images are decoded is full there and scaled here"):
        embed([str(photos)], out, Scaling(can_follow=False), TWO)
    assert embed([str(photos)], out, Scaling(), TWO).rows == 7
    assert open_vectors(out).about.decoding == 1


def test_an_unfinished_run_is_not_continued_as_another(photos: Path, tmp_path: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed([str(photos)], out, Stopping(1), TWO)
    others = save_pictures(tmp_path / "others", ["x.png"])
    for inputs, encoder, options, message in (
        (photos, Colours("other"), TWO, "the model's version"),
        (photos, Colours(), Options(batch_size=3), "its batch size is 2"),
        (others, Colours(), TWO, "it embeds .*photos"),
    ):
        with pytest.raises(VectorsError, match=f"unfinished run of another kind: {message}"):
            embed([str(inputs)], out, encoder, options)
    assert embed([str(photos)], out, Colours(), TWO).rows == 7


def test_an_unfinished_run_is_finished_before_new_images_are_embedded(photos: Path, out: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed([str(photos)], out, Stopping(1), TWO)
    (photos / "0.png").write_bytes(picture(99))
    (photos / "g.png").unlink()
    summary = embed([str(photos)], out, Colours(), TWO)
    assert list(rows(out)) == ["0.png", *NAMES_IN_ORDER[:-1]]
    assert summary.unreadable == 0


def test_two_processes_do_not_work_on_one_file(photos: Path, out: Path) -> None:
    with (
        Work(work_folder(out)),
        pytest.raises(VectorsError, match="Another process is working"),
    ):
        embed([str(photos)], out, Colours(), TWO)


def test_a_run_that_was_killed_while_it_replaced_its_files_is_finished(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed([str(photos)], out, Colours(), TWO)
    (photos / "a.png").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("sds_clip.models.vectors.files.write_atomic", interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed([str(photos)], out, Colours(), TWO)
    with pytest.raises(VectorsError, match=r"v.about.json belongs to .* and is missing"):
        open_vectors(out)
    summary = embed([str(photos)], out, Colours(), TWO)
    assert (summary.rows, summary.missing) == (6, 1)
    assert list(rows(out)) == NAMES_IN_ORDER[1:]


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_progress_tells_what_is_done_from_where_the_run_began(photos: Path, out: Path) -> None:
    told: list[tuple[int, int]] = []
    with pytest.raises(KeyboardInterrupt):
        embed([str(photos)], out, Stopping(1), TWO)
    embed([str(photos)], out, Colours(), TWO, lambda done, total: told.append((done, total)))
    assert told == [(2, 7), (4, 7), (6, 7), (7, 7)]
