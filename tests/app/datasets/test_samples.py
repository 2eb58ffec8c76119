"""The samples of data sets in every storage, and their pictures, as a check has listed them."""

import contextlib
import io
import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from sds_clip.app.datasets import samples
from sds_clip.app.datasets.folders import DatasetFolders
from sds_clip.models.clip.model import Clip
from sds_clip.models.data.open import open_pairs
from sds_clip.models.evaluation.catalog import BENCHMARKS
from sds_clip.models.evaluation.items import open_region
from sds_clip.models.evaluation.readers import read_benchmark
from sds_clip.models.images.ref import ImageRef
from tests.app.conftest import png
from tests.app.datasets.archives import tar_of, tree
from tests.app.datasets.test_routes import checked, upload, winoground
from tests.app.jobs.conftest import Service, error_of, running
from tests.databases import Databases
from tests.pictures import save_pictures
from tests.sds_clip.test_every_benchmark import MAKERS
from tests.training import save_coco

SAVED = Path(__file__).parents[2] / "models/saved_sets"


def folder_of_texts(folder: Path) -> None:
    save_pictures(folder, ["b.png", "a/c.jpg"])
    (folder / "b.txt").write_text("a dog\na small dog\n")
    (folder / "a/c.txt").write_text("a cat")


def metadata(folder: Path) -> None:
    save_pictures(folder, ["b.png", "c.png"])
    lines = [{"file_name": "c.png", "text": "a cat"}, {"file_name": "b.png", "text": ["a dog", "a hound"]}]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def table(folder: Path) -> None:
    save_pictures(folder, ["b.png", "c.png"])
    (folder / "table.csv").write_text("filepath,title\nc.png,a cat\nb.png,a dog\n")


def shards(folder: Path) -> None:
    folder.mkdir()
    for number in range(2):
        names = [f"{number}{place}" for place in "ab"]
        files = {f"{name}.png": png(seed=int(name[0]) + ord(name[1])) for name in names}
        texts = {f"{name}.txt": f"a dog {name}".encode() for name in names}
        (folder / f"{number}.tar").write_bytes(tar_of(dict(sorted({**files, **texts}.items()))))


def saved(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copytree(SAVED / name, folder)


PAIRS: dict[str, Callable[[Path], object]] = {
    "folder": folder_of_texts,
    "coco": save_coco,
    "csv": table,
    "metadata": metadata,
    "webdataset": shards,
    "datasets": saved("shards"),
    "parquet": saved("parquet"),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture
def roots(root: Path) -> Path:
    """A folder of a test's own, below which data sets may be registered."""
    return Path(tempfile.mkdtemp(dir=root))


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, sqlite_databases: Databases, small_member: Clip, root: Path
) -> Iterator[Service]:
    """One for all tests, each of which looks at its own data sets."""
    url = sqlite_databases.url(sqlite_databases.migrated())
    folder = tmp_path_factory.mktemp("samples")
    with running(small_member, data_dir=folder, database_url=url, dataset_roots=[root]) as service:
        yield service


def registered(
    service: Service, roots: Path, source: object, format: str = "pairs", **fields: Any
) -> dict[str, Any]:
    """A data set that stays in place, after its check."""
    body = {"format": format, "source": str(source), **fields}
    answer = service.client.post("/datasets", json=body)
    assert answer.status_code == 202, answer.text
    return checked(service, answer.json()["id"], roots)


def uploaded(service: Service, roots: Path, data: bytes, **form: Any) -> dict[str, Any]:
    """A data set that was sent, after its check."""
    answer = upload(service, data, **{"format": "pairs", **form})
    return checked(service, answer.json()["id"], roots)


def listed(service: Service, dataset_id: str, limit: int = 100) -> list[dict[str, Any]]:
    """All samples, by pages."""
    found: list[dict[str, Any]] = []
    while True:
        after = {"after": found[-1]["index"]} if found else {}
        page = service.client.get(f"/datasets/{dataset_id}/samples", params={"limit": limit, **after}).json()
        assert page["object"] == "list"
        assert len(page["data"]) <= limit
        found += page["data"]
        if not page["has_more"]:
            return found


def picture(service: Service, path: str, **params: Any) -> PIL.Image.Image:
    answer = service.client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    image = PIL.Image.open(io.BytesIO(answer.content))
    assert image.format is not None
    assert answer.headers["Content-Type"] == f"image/{image.format.lower()}"
    return image


def same(found: PIL.Image.Image, expected: PIL.Image.Image) -> bool:
    return np.array_equal(np.asarray(found.convert("RGB")), np.asarray(expected))


@pytest.mark.parametrize("is_upload", [True, False], ids=["upload", "registered"])
@pytest.mark.parametrize("storage", PAIRS)
def test_pairs_of_every_storage_are_listed_as_training_reads_them(
    storage: str, is_upload: bool, service: Service, roots: Path
) -> None:
    pytest.importorskip("pyarrow")
    PAIRS[storage](roots / "data")
    if is_upload:
        dataset = uploaded(service, roots, tar_of(tree(roots / "data")))
    else:
        dataset = registered(service, roots, roots / "data")
    assert dataset["status"] == "ready", dataset["problems"]
    places = {"csv": "table.csv", "coco": "captions.json"}
    expected = open_pairs(roots / "data" / places.get(storage, ""))
    found = listed(service, dataset["id"], limit=2)
    assert [(each["id"], tuple(each["captions"])) for each in found] == [
        (sample.name, sample.captions) for sample in expected.samples
    ]
    assert [each["index"] for each in found] == list(range(len(expected)))
    for index, each in enumerate(found):
        (path,) = each["images"]
        assert same(picture(service, path), expected.image(index))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_items_of_every_benchmark_are_listed_as_it_reads_them(
    name: str, service: Service, roots: Path, tmp_path: Path
) -> None:
    MAKERS[name](roots / "data")
    dataset = registered(service, roots, roots / "data", name)
    assert dataset["status"] == "ready", dataset["problems"]
    file = roots / "data" / ("captions.json" if name == "retrieval" else "")
    expected = read_benchmark(name, file, work=tmp_path / "work").items
    found = listed(service, dataset["id"])
    assert [(each["id"], each["captions"], each["tags"]) for each in found] == [
        (item.id, list(item.captions), list(item.tags)) for item in expected
    ]
    for each, item in zip(found, expected, strict=True):
        assert len(each["images"]) == len(item.images)
        for path, region in zip(each["images"], item.images, strict=True):
            # The part of a box beyond the image is black for the model, and is not shown.
            if region.box is None:
                assert same(picture(service, path), open_region(region))
            else:
                assert picture(service, path).size <= region.box[2:]


def test_shards_of_several_folders_and_with_links_are_read_where_they_are(
    service: Service, roots: Path, tmp_path: Path
) -> None:
    for name in "ab":
        (roots / name).mkdir()
        shard = tar_of({f"{name}.png": png(seed=ord(name)), f"{name}.txt": b"a dog"})
        (roots / name / "0.tar").write_bytes(shard)
    (roots / "link").symlink_to(roots / "b")
    dataset = registered(service, roots, f"{roots}/{{a,link}}/0.tar")
    found = listed(service, dataset["id"])
    assert [each["id"] for each in found] == ["000000.tar/a", "000001.tar/b"]
    for each, name in zip(found, "ab", strict=True):
        assert service.client.get(each["images"][0]).content == png(seed=ord(name))


def test_uploaded_shards_are_listed_and_removed_with_their_data_set(service: Service, roots: Path) -> None:
    before = tree(service.settings.data_dir / "datasets")
    shard = tar_of({"a.png": png(seed=1), "a.txt": b"a dog"})
    answer = service.client.post("/datasets", data={"format": "pairs"}, files=[("shards", ("a.tar", shard))])
    dataset = checked(service, answer.json()["id"], roots)
    (found,) = listed(service, dataset["id"])
    path = found["images"][0]
    assert service.client.get(path).content == png(seed=1)
    service.client.delete(f"/datasets/{dataset['id']}")
    assert error_of(service.client.get(path), 410)["code"] == "picture_gone"
    assert tree(service.settings.data_dir / "datasets") == before


def test_list_of_registered_data_is_removed_and_the_data_stay(service: Service, roots: Path) -> None:
    datasets = service.settings.data_dir / "datasets"
    metadata(roots / "data")
    before = tree(roots), tree(datasets)
    dataset = registered(service, roots, roots / "data")
    service.client.delete(f"/datasets/{dataset['id']}")
    assert (tree(roots), tree(datasets)) == before


@pytest.fixture(scope="module")
def dataset(service: Service, root: Path) -> dict[str, Any]:
    return uploaded(service, root, tar_of(winoground()), format="winoground")


def test_picture_comes_as_it_is_stored_with_headers_that_let_it_do_nothing(
    service: Service, dataset: dict[str, Any]
) -> None:
    answer = service.client.get(f"/datasets/{dataset['id']}/samples/1/images/0")
    assert answer.content == png(seed=2)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"


def test_pictures_of_registered_data_are_not_kept_for_long(service: Service, roots: Path) -> None:
    metadata(roots / "data")
    dataset = registered(service, roots, roots / "data")
    answer = service.client.get(f"/datasets/{dataset['id']}/samples/0/images/0")
    assert answer.headers["Cache-Control"] == "private, max-age=60"


@pytest.mark.parametrize(
    ("side", "size", "type"),
    [(16, (16, 12), "PNG"), (39, (39, 29), "PNG"), (40, (40, 30), "PNG"), (1024, (40, 30), "PNG")],
)
def test_thumbnail_is_no_larger_than_asked_and_never_enlarged(
    side: int, size: tuple[int, int], type: str, service: Service, dataset: dict[str, Any]
) -> None:
    path = f"/datasets/{dataset['id']}/samples/0/images/1"
    found = picture(service, path, max_side=side)
    assert (found.size, found.format) == (size, type)
    assert (service.client.get(path, params={"max_side": side}).content == png(seed=1)) == (side >= 40)


@pytest.mark.parametrize("side", ["15", "1025", "0", "x"])
def test_other_sides_are_refused(side: str, service: Service, dataset: dict[str, Any]) -> None:
    path = f"/datasets/{dataset['id']}/samples/0/images/1?max_side={side}"
    assert error_of(service.client.get(path), 422)["param"] == "max_side"


def test_large_thumbnail_is_a_jpeg_that_is_upright(service: Service, roots: Path) -> None:
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (400, 200), "red").save(file, "JPEG", exif=exif)
    data = tar_of({"a.jpg": file.getvalue(), "a.txt": b"red"})
    dataset = uploaded(service, roots, data)
    path = f"/datasets/{dataset['id']}/samples/0/images/0"
    found = picture(service, path, max_side=200)
    assert (found.size, found.format) == ((100, 200), "JPEG") or found.size == (100, 200)
    assert service.client.get(path).content == file.getvalue()


def test_numbers_that_are_out_of_range_are_unknown(service: Service, dataset: dict[str, Any]) -> None:
    path = f"/datasets/{dataset['id']}/samples"
    for wrong in ("2/images/0", "0/images/2", f"{2**61}/images/0"):
        assert error_of(service.client.get(f"{path}/{wrong}"), 404)["code"] == "no_item"
    for wrong in ("-1/images/0", "0/images/-1", "x/images/0", f"{2**63}/images/0"):
        error_of(service.client.get(f"{path}/{wrong}"), 422)
    assert service.client.get(path, params={"after": 1}).json()["data"] == []
    error_of(service.client.get(path, params={"after": -2}), 422)
    assert service.client.head(f"{path}/0/images/0").status_code == 405


def test_broken_and_missing_pictures_are_listed_and_say_what_is_wrong(service: Service, roots: Path) -> None:
    files = {f"{number}.png": png(seed=number) for number in range(4)}
    files["1.png"] = files["1.png"][:-200]
    files["2.png"] = b"<svg onload='alert(1)'></svg>"
    del files["3.png"]
    data = tar_of({**files, **{f"{number}.txt": b"a dog" for number in range(4)}})
    dataset = uploaded(service, roots, data, max_bad_share=0.9)
    assert dataset["counts"]["usable"] == 1
    found = listed(service, dataset["id"])
    paths = [each["images"][0] for each in found]
    for query in ("", "?max_side=16"):
        answers = [service.client.get(path + query) for path in paths]
        assert answers[0].status_code == 200
        told = [(answer.status_code, answer.json()["error"]["code"]) for answer in answers[1:]]
        assert told == [(422, "image_truncated"), (422, "image_format"), (410, "picture_gone")]
        assert str(service.settings.data_dir) not in "".join(answer.text for answer in answers[1:])


def test_picture_beyond_the_limits_is_refused(make_service: Callable[..., Service], roots: Path) -> None:
    service = make_service(max_image_pixels=1000)
    data = tar_of({"a.png": png(), "a.txt": b"a dog"})
    dataset = uploaded(service, roots, data)
    answer = service.client.get(f"/datasets/{dataset['id']}/samples/0/images/0?max_side=16")
    assert error_of(answer, 422)["code"] == "image_too_large"


def test_no_file_outside_the_data_is_served(service: Service, roots: Path, tmp_path: Path) -> None:
    """Neither by a link that came later, nor by a list whose places were changed."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(seed=9))
    metadata(roots / "data")
    linked = registered(service, roots, roots / "data")
    (roots / "data/b.png").unlink()
    (roots / "data/b.png").symlink_to(secret)
    path = f"/datasets/{linked['id']}/samples/1/images/0"
    assert error_of(service.client.get(path), 410)["code"] == "picture_gone"

    own = uploaded(service, roots, tar_of(winoground()), format="winoground")
    folder = DatasetFolders(service.settings.data_dir / "datasets").content(own["id"])
    (folder / "files/link.png").symlink_to(secret)
    above = ("../../../../../secret.png", "../samples.sqlite3", "../files")
    wrong = (str(secret), *above, "link.png", "a\0b", "")
    for each in (own, linked):
        file = DatasetFolders(service.settings.data_dir / "datasets").content(each["id"]) / samples.SAMPLES
        images = tuple(ImageRef(Path(name)) for name in wrong)
        samples.write_samples(file, [samples.Sample("a", (), (), images)])
        for number in range(len(wrong)):
            answer = service.client.get(f"/datasets/{each['id']}/samples/0/images/{number}")
            assert answer.status_code in (410, 422), (each["source"], wrong[number])


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "sub/../../secret.png"])
def test_data_that_name_files_elsewhere_have_no_samples(name: str, service: Service, roots: Path) -> None:
    line = json.dumps({"file_name": name, "text": "a dog"}).encode()
    data = tar_of({"metadata.jsonl": line, "a.png": png()})
    dataset = uploaded(service, roots, data, max_bad_share=1)
    assert dataset["status"] == "rejected"
    answer = service.client.get(f"/datasets/{dataset['id']}/samples")
    assert error_of(answer, 404)["code"] == "no_samples"


def test_data_set_of_an_older_release_says_that_it_has_no_list(service: Service) -> None:
    dataset_id = service.ready_dataset()
    assert service.client.get(f"/datasets/{dataset_id}").json()["statistics"] is None
    for path in ("samples", "samples/0/images/0"):
        error = error_of(service.client.get(f"/datasets/{dataset_id}/{path}"), 404)
        assert error["code"] == "no_samples"


def test_texts_are_cut_and_made_whole(tmp_path: Path) -> None:
    file = tmp_path / "samples.sqlite3"
    long = samples.Sample("\ud800", ("a" * 5000, "b\ud800"), ("c",) * 500, ())
    samples.write_samples(file, [long])
    ((_, found),), _ = samples.read_page(file, -1, 10)
    assert found.id == "?"
    assert [len(caption) for caption in found.captions] == [samples.MAX_TEXT_CHARS, 2]
    assert len(found.tags) == samples.MAX_TEXTS
    assert samples.count_images(file, ["\ud800"]) == {"\ud800": (0, 0)}


def test_a_list_of_an_earlier_version_is_read(service: Service, roots: Path) -> None:
    pytest.importorskip("pyarrow")
    metadata(roots / "data")
    dataset = registered(service, roots, roots / "data")
    (roots / "data/0.tar").write_bytes(b"before" + png(seed=5) + b"after")
    shutil.copy(SAVED / "parquet/train-00000-of-00001.parquet", roots / "data/t.parquet")
    row = {"path": "a.png", "offset": None, "size": None, "column": None, "row": None, "box": None}
    images = [
        {**row, "path": "b.png"},
        {**row, "path": "b.png", "box": [1, 2, 3, 4]},
        {**row, "path": "0.tar", "offset": 6, "size": len(png(seed=5))},
        {**row, "path": "t.parquet", "column": "image", "row": 0},
    ]
    content = {"id": "0", "captions": ["a dog"], "tags": ["Object"], "images": images}
    file = DatasetFolders(service.settings.data_dir / "datasets").content(dataset["id"]) / samples.SAMPLES
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE samples SET content = ? WHERE number = 0", (json.dumps(content),))
        connection.commit()
    found = listed(service, dataset["id"])[0]
    assert (found["id"], found["captions"], found["tags"]) == ("0", ["a dog"], ["Object"])
    whole, box, shard, cell = found["images"]
    assert service.client.get(whole).content == (roots / "data/b.png").read_bytes()
    assert picture(service, box).size == (3, 4)
    assert service.client.get(shard).content == png(seed=5)
    assert same(picture(service, cell), open_pairs(SAVED / "parquet").image(0))


def test_pictures_in_arrow_files_are_read_without_pyarrow(
    service: Service, roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow")
    paths = {}
    for storage in ("datasets", "parquet"):
        PAIRS[storage](roots / storage)
        dataset = registered(service, roots, roots / storage)
        paths[storage] = listed(service, dataset["id"])[0]["images"][0]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert picture(service, paths["datasets"]).size == (8, 6)
    assert error_of(service.client.get(paths["parquet"]), 501)["code"] == "no_tables"
