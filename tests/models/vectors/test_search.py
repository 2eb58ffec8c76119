import json
from pathlib import Path

import numpy as np
import pytest

from sds_clip.models.errors import VectorsError
from sds_clip.models.vectors.about import About
from sds_clip.models.vectors.files import about_file, open_vectors, write_vectors
from sds_clip.models.vectors.mapped import Vectors
from sds_clip.models.vectors.search import search

DIMENSIONS = 16


def stored(folder: Path, rows: np.ndarray, suffix: str = ".npy") -> Vectors:
    """A file of these rows, whose paths are their numbers."""
    file = folder / f"v{suffix}"
    records = (f'{{"path": "{row}", "sha256": "{row:064}"}}' for row in range(len(rows)))
    about = About(version="v", dimensions=rows.shape[1], dtype=rows.dtype.name, images=".")  # type: ignore[arg-type]
    write_vectors(file, about, len(rows), zip(records, (row.tobytes() for row in rows), strict=True))
    return open_vectors(file)


def unit(count: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((count, DIMENSIONS), dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


@pytest.mark.parametrize("suffix", [".npy", ".arrow", ".parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_best_rows_are_those_of_a_whole_sort(tmp_path: Path, suffix: str, dtype: str) -> None:
    if suffix != ".npy":
        pytest.importorskip("pyarrow")
    rows = unit(40_000).astype(dtype)
    query = unit(1, seed=1)[0]
    exact = rows.astype(np.float64) @ query.astype(np.float64)
    hits = search(stored(tmp_path, rows, suffix), query, 25)
    assert [hit.row for hit in hits] == np.argsort(-exact, kind="stable")[:25].tolist()
    assert [hit.path for hit in hits] == [str(hit.row) for hit in hits]
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(exact)[::-1][:25], rtol=1e-12)


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    rows = unit(5)
    rows[3, 0] = np.nan
    with pytest.raises(VectorsError, match="not finite"):
        search(stored(tmp_path, rows), rows[0], 1)


@pytest.mark.parametrize("suffix", [".arrow", ".parquet"])
@pytest.mark.parametrize("wrong", ["double", "list", "null"])
def test_columns_of_other_types_are_refused(tmp_path: Path, suffix: str, wrong: str) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    whole = pq.read_table(stored(tmp_path, unit(5), ".parquet").path)
    rows = whole.column("embedding").to_pylist()
    rows[2] = None if wrong == "null" else rows[2]
    kinds = {"double": pa.list_(pa.float64(), DIMENSIONS), "list": pa.list_(pa.float32())}
    kind = kinds.get(wrong, pa.list_(pa.float32(), DIMENSIONS))
    columns = [whole.column("path"), whole.column("sha256"), pa.array(rows, kind)]
    schema = pa.schema([*list(whole.schema)[:2], ("embedding", kind)], metadata=whole.schema.metadata)
    other, file = pa.table(columns, schema=schema), tmp_path / f"other{suffix}"
    if suffix == ".parquet":
        pq.write_table(other, file)
    else:
        with pa.ipc.new_file(str(file), schema) as writer:
            writer.write_table(other)
    with pytest.raises(VectorsError, match="embed the images again"):
        open_vectors(file)


@pytest.mark.parametrize(
    "wrong",
    [{"dimensions": "16"}, {"dimensions": 0}, {"dimensions": 10**12}, {"dtype": "foo"}, {"images": 5}],
)
def test_a_file_that_says_nonsense_of_itself_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    file = stored(tmp_path, unit(5)).path
    about = about_file(file)
    about.write_text(json.dumps(json.loads(about.read_text()) | wrong))
    with pytest.raises(VectorsError, match="does not say which model"):
        open_vectors(file)


def test_equal_rows_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = unit(3001)
    rows[[5, 77, 1500, 3000]] = rows[2]
    hits = search(stored(tmp_path, rows), rows[2], 4)
    assert [hit.row for hit in hits] == [2, 5, 77, 1500]
    assert len({hit.score for hit in hits}) == 1


def test_fewer_rows_than_asked_for_are_all_found(tmp_path: Path) -> None:
    rows = unit(3)
    assert len(search(stored(tmp_path, rows), rows[0], 10)) == 3


def test_a_query_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VectorsError, match="rows of 16 numbers, but the query has 8"):
        search(stored(tmp_path, unit(3)), np.ones(8, np.float32), 1)


def test_the_rows_of_parquet_are_copied_once_and_again_when_it_changes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    first = unit(10)
    for _ in range(2):
        assert search(stored(tmp_path, first, ".parquet"), first[3], 1)[0].row == 3
    (copy,) = tmp_path.glob(".v.parquet.*.npy")
    changed = copy.stat().st_mtime_ns
    open_vectors(tmp_path / "v.parquet")
    assert copy.stat().st_mtime_ns == changed
    second = unit(20, seed=2)
    assert search(stored(tmp_path, second, ".parquet"), second[13], 1)[0].row == 13
    assert len(list(tmp_path.glob(".v.parquet.*.npy"))) == 1


@pytest.mark.parametrize("suffix", [".npy", ".arrow", ".parquet"])
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, suffix: str) -> None:
    if suffix != ".npy":
        pytest.importorskip("pyarrow")
    file = stored(tmp_path, unit(1000), suffix).path
    content = file.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"nothing of the kind"):
        file.write_bytes(damaged)
        with pytest.raises(VectorsError):
            open_vectors(file)


def test_a_table_without_the_model_is_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "v.parquet")
    with pytest.raises(VectorsError, match="does not say which model made its rows"):
        open_vectors(tmp_path / "v.parquet")


@pytest.mark.parametrize("name", ["v.csv", "v"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(VectorsError, match=r"must end with \.parquet, \.arrow or \.npy"):
        open_vectors(tmp_path / name)
