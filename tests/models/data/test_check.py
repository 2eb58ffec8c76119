"""What is wrong with data is counted, listed and judged before training."""

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from sds_clip.models.data.check import CheckedPairs, check_pairs
from sds_clip.models.data.pairs import FilePairs, Sample
from sds_clip.models.errors import DataError
from sds_clip.models.findings import LISTED
from tests.pictures import save_pictures


def pairs_of(folder: Path, names: list[str], captions: list[tuple[str, ...]] | None = None) -> FilePairs:
    texts = captions or [(f"caption of {name}",) for name in names]
    samples = [Sample(name, text, ((),) * len(text)) for name, text in zip(names, texts, strict=True)]
    return FilePairs(samples, folder)


def test_sound_data_are_all_kept(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png", "b.jpg", "c.webp"])
    seen: list[tuple[int, int]] = []
    checked = check_pairs(
        pairs_of(tmp_path, ["a.png", "b.jpg", "c.webp"]),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert len(checked.pairs) == checked.report.usable == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_each_kind_of_fault_is_counted_and_left_out(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    (tmp_path / "b.png").write_bytes(b"not an image")
    names = ["a.png", "b.png", "missing.png", "c.png", "d.png"]
    captions = [("x",), ("x",), ("x",), ("x", "  "), ()]
    checked = check_pairs(pairs_of(tmp_path, names, captions), max_bad_share=0.8, workers=2)
    report = checked.report
    assert (
        report.findings["missing_file"].count,
        report.findings["image_unreadable"].count,
        report.findings["bad_caption"].count,
    ) == (
        1,
        1,
        2,
    )
    assert report.bad_share == 0.8
    assert [checked.pairs.sample(index).name for index in range(len(checked.pairs))] == ["a.png"]
    assert "4 of 5" in str(report)
    assert "missing.png" in str(report)


def test_share_over_the_threshold_names_items_and_remedy(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png"])
    pairs = pairs_of(tmp_path, ["a.png", "gone.png"])
    with pytest.raises(DataError, match=r"(?s)1 of 2.*--max-bad-share.*gone\.png"):
        check_pairs(pairs)
    with pytest.raises(DataError, match=r"0\.49"):
        check_pairs(pairs, max_bad_share=0.49)
    assert len(check_pairs(pairs, max_bad_share=0.5).pairs) == 1


def test_nothing_left_is_an_error_at_any_threshold(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        check_pairs(pairs_of(tmp_path, ["gone.png"]), max_bad_share=1.0)
    with pytest.raises(DataError, match="0 of 0"):
        check_pairs(pairs_of(tmp_path, []))


def test_many_faults_are_counted_and_few_are_listed(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(LISTED + 5)]
    with pytest.raises(DataError) as caught:
        check_pairs(pairs_of(tmp_path, names))
    assert str(caught.value).count(".png: ") == 3
    assert f"and {LISTED + 2} more" in str(caught.value)
    save_pictures(tmp_path, ["a.png"])
    report = check_pairs(pairs_of(tmp_path, ["a.png", *names]), max_bad_share=1.0).report
    assert str(report).count(".png: ") == LISTED
    assert "and 5 more" in str(report)


def test_content_hash_is_of_names_texts_and_bytes_in_order(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png", "b.png"])
    sample = Sample("a.png", ("x",), (("y",),))
    text = hashlib.sha256(json.dumps(["a.png", ["x"], [["y"]]]).encode()).digest()
    data = hashlib.sha256((tmp_path / "a.png").read_bytes()).digest()
    expected = hashlib.sha256(hashlib.sha256(text + data).digest()).hexdigest()
    assert check_pairs(FilePairs([sample], tmp_path)).pairs.content_hash == expected
    whole = pairs_of(tmp_path, ["a.png", "b.png"])
    assert check_pairs(whole).pairs.content_hash == whole.content_hash
    turned = pairs_of(tmp_path, ["b.png", "a.png"])
    assert turned.content_hash != whole.content_hash


def test_content_hash_is_that_of_the_usable_part(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png", "b.png"])
    checked = check_pairs(pairs_of(tmp_path, ["a.png", "gone.png", "b.png"]), max_bad_share=0.5)
    assert checked.pairs.content_hash == pairs_of(tmp_path, ["a.png", "b.png"]).content_hash


def test_content_hash_follows_an_image_whose_size_stays(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (4, 4), (1, 1, 1)).save(tmp_path / "a.gif")
    before = check_pairs(pairs_of(tmp_path, ["a.gif"])).pairs.content_hash
    data = bytearray((tmp_path / "a.gif").read_bytes())
    data[13] ^= 1
    (tmp_path / "a.gif").write_bytes(bytes(data))
    assert check_pairs(pairs_of(tmp_path, ["a.gif"])).pairs.content_hash != before


class Processes:
    """Threads in the place of processes: each gets what all of them have given."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._given: list[Any] = [None] * count
        self._all_here = threading.Barrier(count)

    def check(self, pairs: Sequence[FilePairs], max_bad_share: float) -> list[CheckedPairs]:
        with ThreadPoolExecutor(self.count) as pool:
            return list(
                pool.map(lambda rank: self._check(pairs[rank], max_bad_share, rank), range(self.count))
            )

    def _check(self, pairs: FilePairs, max_bad_share: float, rank: int) -> CheckedPairs:
        def exchange(own: Any) -> list[Any]:
            self._given[rank] = own
            self._all_here.wait()
            return list(self._given)

        return check_pairs(
            pairs, max_bad_share=max_bad_share, rank=rank, world_size=self.count, exchange=exchange
        )


def test_processes_read_a_part_each_and_come_to_one_result(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in range(8)]
    save_pictures(tmp_path, names)
    (tmp_path / "4.png").unlink()
    (tmp_path / "6.png").write_bytes(b"not an image")
    reads: list[int] = []

    class Counted(FilePairs):
        def read(self, index: int) -> bytes:
            reads.append(index)
            return super().read(index)

    whole = pairs_of(tmp_path, names)
    alone = check_pairs(whole, max_bad_share=0.5)
    for checked in Processes(3).check([Counted(whole.samples, whole.folder)] * 3, 0.5):
        assert checked.report == alone.report
        assert checked.pairs.content_hash == alone.pairs.content_hash
        kept = [checked.pairs.sample(index).name for index in range(len(checked.pairs))]
        assert kept == ["0.png", "1.png", "2.png", "3.png", "5.png", "7.png"]
    assert sorted(reads) == list(range(8))


def test_processes_with_other_data_are_refused(tmp_path: Path) -> None:
    save_pictures(tmp_path, ["a.png", "b.png"])
    one = pairs_of(tmp_path, ["a.png", "b.png"])
    other = pairs_of(tmp_path, ["a.png", "b.png"], [("x",), ("another",)])
    with pytest.raises(DataError, match="processes read different data"):
        Processes(2).check([one, other], 0.0)


def test_only_a_few_images_are_read_ahead(tmp_path: Path) -> None:
    reads = 0
    ahead: list[int] = []
    lock = threading.Lock()

    class Counted(FilePairs):
        def read(self, index: int) -> bytes:
            nonlocal reads
            with lock:
                reads += 1
            return super().read(index)

    names = [f"{number}.png" for number in range(100)]
    whole = pairs_of(save_pictures(tmp_path, names), names)
    check_pairs(
        Counted(whole.samples, whole.folder), workers=1, progress=lambda done, _: ahead.append(reads - done)
    )
    assert max(ahead) <= 5
